/* SPDX-License-Identifier: Apache-2.0 */
/* Texts: UTF-8 here, UTF-16 for Windows. */
#include "guest.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *allocate(size_t size)
{
	void *memory = calloc(1, size);
	if (!memory)
		ExitProcess(ERROR_NOT_ENOUGH_MEMORY);
	return memory;
}

char *format(const char *format, ...)
{
	va_list values, again;
	va_start(values, format);
	va_copy(again, values);
	int length = __mingw_vsnprintf(NULL, 0, format, values);
	va_end(values);
	char *text = allocate((size_t)length + 1);
	__mingw_vsnprintf(text, (size_t)length + 1, format, again);
	va_end(again);
	return text;
}

wchar_t *wide(const char *text)
{
	int size = MultiByteToWideChar(CP_UTF8, 0, text, -1, NULL, 0);
	wchar_t *result = allocate((size_t)(size ? size : 1) * sizeof *result);
	MultiByteToWideChar(CP_UTF8, 0, text, -1, result, size);
	return result;
}

char *narrow(const wchar_t *text)
{
	int size = WideCharToMultiByte(CP_UTF8, 0, text, -1, NULL, 0, NULL, NULL);
	char *result = allocate((size_t)(size ? size : 1));
	WideCharToMultiByte(CP_UTF8, 0, text, -1, result, size, NULL, NULL);
	return result;
}

wchar_t *join(const wchar_t *folder, const char *name)
{
	wchar_t *end = wide(name);
	size_t size = wcslen(folder) + wcslen(end) + 2;
	wchar_t *path = allocate(size * sizeof *path);
	wcscpy(path, folder);
	if (*folder && folder[wcslen(folder) - 1] != L'\\')
		wcscat(path, L"\\");
	wcscat(path, end);
	return path;
}
