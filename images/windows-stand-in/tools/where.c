/* SPDX-License-Identifier: Apache-2.0 */
/* where [/q] PATTERN...: files in the present folder and those of PATH, with the endings of PATHEXT. */
#include "tool.h"

static bool quiet;

static int list(const wchar_t *folder, const wchar_t *pattern)
{
	wchar_t path[2 * MAX_PATH];
	WIN32_FIND_DATAW entry;
	int found = 0;
	_snwprintf(path, 2 * MAX_PATH, L"%ls%ls%ls", folder, folder[wcslen(folder) - 1] == L'\\' ? L"" : L"\\",
		   pattern);
	path[2 * MAX_PATH - 1] = 0;
	HANDLE search = FindFirstFileW(path, &entry);
	if (search == INVALID_HANDLE_VALUE)
		return 0;
	do {
		if (entry.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY)
			continue;
		if (!quiet)
			printf("%ls%ls%ls\n", folder, folder[wcslen(folder) - 1] == L'\\' ? L"" : L"\\",
			       entry.cFileName);
		found++;
	} while (FindNextFileW(search, &entry));
	FindClose(search);
	return found;
}

static int look(const wchar_t *folder, const wchar_t *pattern)
{
	static wchar_t endings[1024];
	wchar_t named[MAX_PATH];
	int found = list(folder, pattern);
	if (!*endings && !GetEnvironmentVariableW(L"PATHEXT", endings, 1024))
		wcscpy(endings, L".com;.exe;.bat;.cmd");
	for (const wchar_t *ending = endings; *ending; ending += wcscspn(ending, L";"), ending += *ending == L';') {
		_snwprintf(named, MAX_PATH, L"%ls%.*ls", pattern, (int)wcscspn(ending, L";"), ending);
		named[MAX_PATH - 1] = 0;
		if (!wcschr(pattern, L'.'))
			found += list(folder, named);
	}
	return found;
}

int wmain(int argc, wchar_t **argv)
{
	static wchar_t folders[32768];
	int missing = 0, wanted = 0;
	for (int i = 1; i < argc; i++) {
		int found = 0;
		if (is_option(argv[i], L"q")) {
			quiet = true;
			continue;
		}
		if (*argv[i] == L'/' || wcschr(argv[i], L':') || *argv[i] == L'$')
			unavailable_operation(L"where", argv[i]);
		wanted++;
		found += look(L".", argv[i]);
		GetEnvironmentVariableW(L"PATH", folders, 32768);
		for (wchar_t *folder = folders, *end; *folder; folder = end) {
			end = folder + wcscspn(folder, L";");
			if (*end)
				*end++ = 0;
			if (*folder)
				found += look(folder, argv[i]);
		}
		if (!found)
			missing++;
	}
	if (wanted == 0 || missing == wanted) {
		if (!quiet)
			fprintf(stderr, "INFO: Could not find files for the given pattern(s).\n");
		return 1;
	}
	return 0;
}
