/* SPDX-License-Identifier: Apache-2.0 */
/* Starts an engine that stands by, which says "ready" when it does, and stays as its parent, which a script may end.
 * "standby end" ends those that there are. */
#include "engine.h"
#include "handover.h"

#define FOLDER L"C:\\Program Files\\PowerShell\\StandBy"
enum { ROOM = 32000 };

/* A script that would run long is compiled anew while it runs, which one processor has no time for. */
static const wchar_t *const own_values[][2] = {{L"DOTNET_STARTUP_HOOKS", FOLDER L"\\StandBy.dll"},
					       {L"VMROLE_STANDBY", FOLDER L"\\warm.ps1"},
					       {L"DOTNET_TieredPGO", L"0"},
					       {L"DOTNET_TC_CallCounting", L"0"}};

int main(int argc, char **argv)
{
	static wchar_t line[LINE];
	STARTUPINFOW how = {.cb = sizeof how};
	PROCESS_INFORMATION made;
	DWORD code = 1;
	if (argc == 2 && strcmp(argv[1], "end") == 0) {
		end_standbys();
		return 0;
	}
	if (!has_console())
		unavailable(L"powershell without a console");
	set_engine_values();
	for (size_t i = 0; i < sizeof own_values / sizeof *own_values; i++)
		SetEnvironmentVariableW(own_values[i][0], own_values[i][1]);
	/* The place in memory is what the command line of its step gets. */
	wcscpy(line, L"\"" ENGINE L"\"");
	wmemset(line + wcslen(line), L' ', ROOM - wcslen(line));
	if (!start_process(ENGINE, line, TRUE, 0, NULL, L"C:\\", &how, &made))
		unavailable(L"powershell");
	WaitForSingleObject(made.hProcess, INFINITE);
	GetExitCodeProcess(made.hProcess, &code);
	return (int)code;
}
