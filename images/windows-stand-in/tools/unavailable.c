/* SPDX-License-Identifier: Apache-2.0 */
/* What this guest cannot do, under the name of the program that would: the builder copies it under all of them. */
#include "tool.h"

int main(void)
{
	wchar_t path[MAX_PATH];
	GetModuleFileNameW(NULL, path, MAX_PATH);
	path[MAX_PATH - 1] = 0;
	wchar_t *name = wcsrchr(path, L'\\');
	name = _wcslwr(name ? name + 1 : path);
	wchar_t *dot = wcsrchr(name, L'.');
	if (dot)
		*dot = 0;
	unavailable(name);
}
