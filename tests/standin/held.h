/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of programs whose threads get no processor for a while: those that read wait before they do, as long as there
 * is the file HOLD. It is included before the program itself. */
#define WIN32_LEAN_AND_MEAN
#include <winsock2.h>
#include <windows.h>

static DWORD main_thread;

__attribute__((constructor)) static void note_main_thread(void)
{
	main_thread = GetCurrentThreadId();
}

static BOOL held_read(HANDLE from, void *to, DWORD size, DWORD *got, OVERLAPPED *how)
{
	while (GetCurrentThreadId() != main_thread && GetFileAttributesA(HOLD) != INVALID_FILE_ATTRIBUTES)
		Sleep(10);
	return ReadFile(from, to, size, got, how);
}

#define ReadFile held_read
