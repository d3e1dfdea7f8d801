/* SPDX-License-Identifier: Apache-2.0 */
/* What the programs have in common that stand where Wine has a silent stub, or nothing: how they fail loudly, and how
 * they ask the machine for what only Linux can do (python/standin/control.py). */
#ifndef STANDIN_TOOL_H
#define STANDIN_TOOL_H

#define WIN32_LEAN_AND_MEAN
#include <winsock2.h>
#include <windows.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "../../windows-components/run/start.h"

#define UNAVAILABLE_LOG L"C:\\windows\\vmrole-unavailable.log"
#define SYSTEM32 L"C:\\windows\\system32"
enum { UNAVAILABLE = 9150, CONTROL_PORT = 5984 };

/* Says so on standard error and in the log that the harness reads, and ends: nothing that calls this can look green. */
static inline _Noreturn void unavailable(const wchar_t *name)
{
	char line[256];
	DWORD wrote;
	int length = WideCharToMultiByte(CP_UTF8, 0, name, -1, line, sizeof line - 2, NULL, NULL) - 1;
	if (length < 0)
		length = 0;
	for (int i = 0; i < length; i++)
		if ((unsigned char)line[i] < 0x20)
			line[i] = '?';
	fprintf(stderr, "%.*s is not available on the stand-in guest\n", length, line);
	line[length++] = '\n';
	HANDLE log = CreateFileW(UNAVAILABLE_LOG, FILE_APPEND_DATA, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL,
				 OPEN_ALWAYS, 0, NULL);
	if (log != INVALID_HANDLE_VALUE) {
		WriteFile(log, line, (DWORD)length, &wrote, NULL);
		CloseHandle(log);
	}
	fflush(stdout);
	ExitProcess(UNAVAILABLE);
}

/* "PROGRAM WORD": an operation of a program that can do others. */
static inline _Noreturn void unavailable_operation(const wchar_t *program, const wchar_t *word)
{
	wchar_t name[100];
	_snwprintf(name, 100, L"%ls %.60ls", program, word);
	name[99] = 0;
	_wcslwr(name);
	unavailable(name);
}

static inline bool is(const wchar_t *word, const wchar_t *wanted)
{
	return _wcsicmp(word, wanted) == 0;
}

/* Whether `word` is the option `wanted`, which begins with / or - . */
static inline bool is_option(const wchar_t *word, const wchar_t *wanted)
{
	return (*word == L'/' || *word == L'-') && is(word + 1, wanted);
}

/* Runs Wine's own program, which the builder keeps as wine-NAME.exe in `folder`, with the very command line; its code. */
static inline int run_wines(const wchar_t *folder, const wchar_t *name)
{
	wchar_t program[MAX_PATH], line[8192];
	const wchar_t *own = GetCommandLineW();
	STARTUPINFOW how = {.cb = sizeof how};
	PROCESS_INFORMATION made;
	DWORD code;
	own += *own == L'"' ? wcscspn(own + 1, L"\"") + 2 : wcscspn(own, L" \t");
	_snwprintf(program, MAX_PATH, L"%ls\\wine-%ls.exe", folder, name);
	_snwprintf(line, 8192, L"wine-%ls.exe%ls", name, own);
	program[MAX_PATH - 1] = line[8191] = 0;
	if (!start_process(program, line, TRUE, 0, NULL, NULL, &how, &made))
		unavailable(name);
	WaitForSingleObject(made.hProcess, INFINITE);
	GetExitCodeProcess(made.hProcess, &code);
	return (int)code;
}

/* Asks the machine; prints the answer, on standard error if it is none, and returns its code. */
static inline int ask(const wchar_t *const words[], int count)
{
	WSADATA data;
	char text[4096];
	int heard = 0, got;
	struct sockaddr_in address = {.sin_family = AF_INET};
	WSAStartup(MAKEWORD(2, 2), &data);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	address.sin_port = htons(CONTROL_PORT);
	SOCKET sock = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
	if (connect(sock, (struct sockaddr *)&address, sizeof address) != 0) {
		fprintf(stderr, "the stand-in guest's own program cannot be reached\n");
		return 1;
	}
	for (int i = 0; i < count; i++) {
		int size = WideCharToMultiByte(CP_UTF8, 0, words[i], -1, text, sizeof text, NULL, NULL);
		send(sock, text, size, 0);
	}
	send(sock, "", 1, 0);
	while (heard < (int)sizeof text - 1 && (got = recv(sock, text + heard, (int)sizeof text - 1 - heard, 0)) > 0)
		heard += got;
	closesocket(sock);
	text[heard] = 0;
	char *rest = strchr(text, '\n');
	int code = rest ? atoi(text) : 1;
	if (rest && rest[1])
		fprintf(code ? stderr : stdout, "%s%s", rest + 1, code ? "\n" : "");
	return code;
}

#endif
