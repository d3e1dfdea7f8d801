/* SPDX-License-Identifier: Apache-2.0 */
/* Hands a command line to an engine that stands by (powershell/StandBy/StandBy.cs): the caller's process id, its three
 * standard handles, then command line, folder and environment as UTF-16LE, each after its length in bytes. The engine
 * answers with a byte once it has taken over. A process id of 0 ends it. */
#ifndef STANDIN_HANDOVER_H
#define STANDIN_HANDOVER_H

#include "tool.h"

#include <stdint.h>

#define STANDBY_PIPE L"\\\\.\\pipe\\vmrole-standby"
#define STANDBY_LOG L"C:\\windows\\vmrole-standby.log"
enum { TAKE_MS = 30000 };

static inline char *put(char *at, const void *data, size_t size)
{
	memcpy(at, data, size);
	return at + size;
}

static inline char *put_text(char *at, const wchar_t *text, size_t length)
{
	int32_t size = (int32_t)(length * sizeof *text);
	return put(put(at, &size, sizeof size), text, (size_t)size);
}

/* The pipe of an engine that stands by; INVALID_HANDLE_VALUE for none. */
static inline HANDLE open_standby(void)
{
	return CreateFileW(STANDBY_PIPE, GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING, FILE_FLAG_OVERLAPPED,
			   NULL);
}

/* Whether `size` bytes went through in time. */
static inline bool transfer(HANDLE pipe, bool writes, void *data, DWORD size)
{
	OVERLAPPED how = {.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL)};
	DWORD moved = 0;
	BOOL begun = writes ? WriteFile(pipe, data, size, NULL, &how) : ReadFile(pipe, data, size, NULL, &how);
	if (!begun && GetLastError() == ERROR_IO_PENDING && WaitForSingleObject(how.hEvent, TAKE_MS) == WAIT_TIMEOUT)
		CancelIo(pipe);
	bool done = GetOverlappedResult(pipe, &how, &moved, TRUE) && moved == size;
	CloseHandle(how.hEvent);
	return done;
}

/* The request for `line` in our folder, environment and standard handles, and its size; NULL for no memory. */
static inline char *standby_request(const wchar_t *line, DWORD *size)
{
	static const DWORD streams[] = {STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE};
	const wchar_t *environment = GetEnvironmentStringsW(), *end = environment;
	DWORD id = GetCurrentProcessId(), length = GetCurrentDirectoryW(0, NULL);
	wchar_t *folder = calloc(length + 1, sizeof *folder);
	while (*end)
		end += wcslen(end) + 1;
	size_t variables = (size_t)(end - environment) + 1;
	char *request = malloc(64 + (wcslen(line) + length + variables) * sizeof *line), *at = request;
	if (!folder || !request)
		return NULL;
	GetCurrentDirectoryW(length, folder);
	at = put(at, &id, sizeof id);
	for (int i = 0; i < 3; i++) {
		int64_t handle = (int64_t)(intptr_t)GetStdHandle(streams[i]);
		at = put(at, &handle, sizeof handle);
	}
	at = put_text(at, line, wcslen(line));
	at = put_text(at, folder, wcslen(folder));
	at = put_text(at, environment, variables);
	*size = (DWORD)(at - request);
	free(folder);
	return request;
}

/* The process that runs `line` now; NULL when no engine that fits stands by: then nothing has happened. */
static inline HANDLE standby_engine(const wchar_t *line)
{
	HANDLE pipe, process = NULL;
	while (!process && (pipe = open_standby()) != INVALID_HANDLE_VALUE) {
		DWORD size = 0;
		ULONG server;
		char taken = 0, *request = standby_request(line, &size);
		if (request && GetNamedPipeServerProcessId(pipe, &server))
			process =
				OpenProcess(SYNCHRONIZE | PROCESS_QUERY_INFORMATION | PROCESS_TERMINATE, FALSE, server);
		if (process && !(transfer(pipe, true, request, size) && transfer(pipe, false, &taken, 1))) {
			TerminateProcess(process, 1); /* it must not begin after all */
			WaitForSingleObject(process, TAKE_MS);
			CloseHandle(process);
			process = NULL;
		}
		free(request);
		CloseHandle(pipe);
	}
	return process;
}

/* Ends every engine that stands by. */
static inline void end_standbys(void)
{
	HANDLE pipe;
	while ((pipe = open_standby()) != INVALID_HANDLE_VALUE) {
		DWORD none = 0;
		char taken;
		if (transfer(pipe, true, &none, sizeof none))
			transfer(pipe, false, &taken, 1); /* returns when it is gone */
		CloseHandle(pipe);
	}
}

#endif
