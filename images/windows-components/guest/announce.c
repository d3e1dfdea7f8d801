/* SPDX-License-Identifier: Apache-2.0 */
/* What the harness reads on the serial port: whole lines, each in one write. */
#include "guest.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool announcing;

static void announce(const char *text)
{
	char *line = format("vmrole: %s\n", text);
	DWORD wrote;
	for (char *c = line; c[1]; c++) /* one line, whatever a name on the medium contains */
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	HANDLE port = CreateFileW(L"\\\\.\\COM1", GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE,
				  NULL, OPEN_EXISTING, 0, NULL);
	if (port == INVALID_HANDLE_VALUE)
		return;
	WriteFile(port, line, (DWORD)strlen(line), &wrote, NULL);
	CloseHandle(port);
}

void stage(const char *text)
{
	announce(format("stage %s", text));
}

static _Noreturn void end(const char *sentence)
{
	fprintf(stderr, "%s\n", sentence);
	if (announcing)
		announce(format("failed %s", sentence));
	ExitProcess(1);
}

void fail(const char *how, ...)
{
	char sentence[1024];
	va_list values;
	va_start(values, how);
	__mingw_vsnprintf(sentence, sizeof sentence, how, values);
	end(sentence);
}

void fail_error(DWORD error, const char *how, ...)
{
	char sentence[1024];
	wchar_t why[256] = L"";
	va_list values;
	va_start(values, how);
	__mingw_vsnprintf(sentence, sizeof sentence, how, values);
	FormatMessageW(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, NULL, error, 0, why, 256, NULL);
	why[wcscspn(why, L"\r\n")] = 0;
	size_t length = wcslen(why);
	if (length && why[length - 1] == L'.')
		why[length - 1] = 0;
	end(*why ? format("%s: %s (Windows error %lu)", sentence, narrow(why), error)
		 : format("%s: Windows error %lu", sentence, error));
}
