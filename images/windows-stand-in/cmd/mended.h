/* SPDX-License-Identifier: Apache-2.0 */
/* Included before each source of Wine's cmd (see build): what it lacks outside of Wine's own build, and the calls that
 * mended.c takes. */
#ifndef MENDED_H
#define MENDED_H

#include <windows.h>
#include <stdarg.h>
#include <stddef.h>

#define ERROR_NO_WORK_DONE 235L
#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define __WINE_MALLOC
#define __WINE_ALLOC_SIZE(argument)
#define __WINE_DEALLOC(function)

/* Wine's wine/debug.h: what it traces is not wanted. */
#define WINE_DEFAULT_DEBUG_CHANNEL(channel)
#define WINE_TRACE(...) ((void)0)
#define WINE_FIXME(...) ((void)0)
#define WINE_ERR(...) ((void)0)
#define WINE_WARN(...) ((void)0)
#define TRACE(...) ((void)0)
#define FIXME(...) ((void)0)
#define ERR(...) ((void)0)
#define WARN(...) ((void)0)
#define WINE_TRACE_ON(channel) 0
#define TRACE_ON(channel) 0
#define wine_dbgstr_w(text) ""
#define debugstr_w(text) ""
#define wine_dbgstr_wn(text, count) ""
#define wine_dbg_sprintf(...) ""

/* What the headers of MinGW leave out: where a callee takes its arguments off the stack, it has to be known. */
BOOL WINAPI VerifyConsoleIoHandle(HANDLE handle);
LONG WINAPI RtlGetVersion(RTL_OSVERSIONINFOEXW *version);

/* Marks a line that `edits` changed; build counts them. */
#define MENDED

DWORD mended_variable(const WCHAR *name, WCHAR *value, DWORD size);
HANDLE mended_open(const WCHAR *path, DWORD access, DWORD share, SECURITY_ATTRIBUTES *security, DWORD how, DWORD flags,
		   HANDLE like);
BOOL mended_copy(const WCHAR *from, const WCHAR *to, BOOL only_new);
BOOL mended_move(const WCHAR *from, const WCHAR *to, DWORD flags);
DWORD WINAPI mended_message(DWORD flags, const void *source, DWORD code, DWORD language, WCHAR *text, DWORD size,
			    va_list *arguments);
UINT mended_page(void);
void mended_bangs(WCHAR *text);
void mended_refuse(const WCHAR *what);

#ifndef RC_INVOKED
#define wmain wine_main
#define GetEnvironmentVariableW mended_variable
#define CreateFileW mended_open
#define CopyFileW mended_copy
#define MoveFileExW mended_move
#define FormatMessageW mended_message
#define GetOEMCP mended_page
#define GetConsoleCP mended_page
#define GetConsoleOutputCP mended_page
/* What comes from a FOR variable is there before !...! is looked at, and is looked at too. */
#define handleExpansion(text, late) (expand_percents(text, late), (late) ? mended_bangs(text) : (void)0)
#endif

#endif
