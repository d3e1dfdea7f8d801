/* SPDX-License-Identifier: Apache-2.0 */
/* The engine of an image with a PowerShell, and the environment that it has to find. */
#ifndef STANDIN_ENGINE_H
#define STANDIN_ENGINE_H

#include "tool.h"

#define ENGINE L"C:\\Program Files\\PowerShell\\7\\pwsh.exe"
enum { LINE = 32768 };

/* Text without colours in its pipes, nothing that it asks the network for, and memory that is never writable and
 * executable at once, which Wine's is not. */
static const wchar_t *const engine_values[][2] = {{L"NO_COLOR", L"1"},
						  {L"POWERSHELL_TELEMETRY_OPTOUT", L"1"},
						  {L"POWERSHELL_UPDATECHECK", L"Off"},
						  {L"DOTNET_EnableWriteXorExecute", L"0"}};
enum { ENGINE_VALUES = sizeof engine_values / sizeof *engine_values };

static inline void set_engine_values(void)
{
	for (size_t i = 0; i < ENGINE_VALUES; i++)
		if (!GetEnvironmentVariableW(engine_values[i][0], NULL, 0))
			SetEnvironmentVariableW(engine_values[i][0], engine_values[i][1]);
}

/* Without a console the engine says nothing, does nothing and ends with 0. */
static inline bool has_console(void)
{
	DWORD mode;
	HANDLE console = CreateFileW(L"CONOUT$", GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL,
				     OPEN_EXISTING, 0, NULL);
	bool there = console != INVALID_HANDLE_VALUE && GetConsoleMode(console, &mode);
	if (console != INVALID_HANDLE_VALUE)
		CloseHandle(console);
	return there;
}

#endif
