/* SPDX-License-Identifier: Apache-2.0 */
/* The 32-bit twin of a program, in an image without 32-bit programs: a 64-bit one that says so below SysWOW64. */
#include "tool.h"

/* Wine's installer waits without an end for the one that it wants to run a 32-bit library in: that is let go. */
static void let_go(void)
{
	wchar_t pipe[MAX_PATH];
	DWORD parent;
	if (swscanf(GetCommandLineW(), L"%*ls -Embedding %lu", &parent) != 1)
		return;
	_snwprintf(pipe, MAX_PATH, L"\\\\.\\pipe\\msica_%lx_32", parent);
	CreateFileW(pipe, GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING, 0, NULL);
}

int main(void)
{
	wchar_t path[MAX_PATH];
	GetModuleFileNameW(NULL, path, MAX_PATH);
	path[MAX_PATH - 1] = 0;
	wchar_t *name = wcsrchr(path, L'\\');
	let_go();
	unavailable_operation(name ? name + 1 : path, L"(32-bit)");
}
