// SPDX-License-Identifier: Apache-2.0
// Starting processes. Wine's internal error is one that ended before it began: nothing of its program was executed, and it
// is started again.
#ifndef VMROLE_START_H
#define VMROLE_START_H

#include <windows.h>

enum { START_ATTEMPTS = 6 };

static inline BOOL start_process(const wchar_t *program, wchar_t *line, BOOL inherit, DWORD flags, void *environment,
				 const wchar_t *folder, STARTUPINFOW *how, PROCESS_INFORMATION *made)
{
	BOOL started = FALSE;
	for (int attempt = 0; !started && attempt < START_ATTEMPTS; attempt++) {
		started = CreateProcessW(program, line, NULL, NULL, inherit, flags, environment, folder, how, made);
		if (!started && GetLastError() != ERROR_INTERNAL_ERROR)
			break;
	}
	return started;
}

#endif
