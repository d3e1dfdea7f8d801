/* SPDX-License-Identifier: Apache-2.0 */
/* A recycled role: at the next boot, before the guest is ready, some local resources are emptied. Their folders stay as
 * they are, and nothing outside of them is touched, whatever is in them. */
#include "guest.h"

#include <stdlib.h>
#include <string.h>

#define RECYCLE STATE L"\\recycle" /* names, a line each */
#define LONG_PATH L"\\\\?\\"
enum { MOST_PATH = 32768 };

static bool is_resource(const struct answer *answer, const char *name)
{
	for (int i = 0; i < answer->resource_count; i++)
		if (strcmp(answer->resources[i].name, name) == 0)
			return true;
	return false;
}

void plan_recycle(wchar_t *const names[], int count)
{
	struct answer answer;
	char *text = "";
	const char *words[MOST_RESOURCES + 1] = {"recycle"};
	if (!read_instance(&answer))
		fail("this guest is no machine of its own yet");
	for (int i = 0; i < count; i++) {
		const char *name = narrow(names[i]);
		if (!is_resource(&answer, name) || i == MOST_RESOURCES)
			fail("%.200s is no local resource of this machine", name);
		words[i + 1] = name;
		text = format("%s%s\n", text, name);
	}
	if (on_stand_in()) /* its Linux has the file systems; in Wine a link cannot be told from what it points to */
		ask_stand_in(words, count + 1);
	else
		write_file(RECYCLE, text, strlen(text));
}

/* Lets this process, which is the system's, into what the role has locked. */
static void take_privileges(void)
{
	const wchar_t *const names[] = {L"SeBackupPrivilege", L"SeRestorePrivilege"};
	HANDLE token;
	if (!OpenProcessToken(GetCurrentProcess(), TOKEN_ADJUST_PRIVILEGES, &token))
		return;
	for (int i = 0; i < 2; i++) {
		TOKEN_PRIVILEGES wanted = {.PrivilegeCount = 1, .Privileges[0].Attributes = SE_PRIVILEGE_ENABLED};
		if (LookupPrivilegeValueW(NULL, names[i], &wanted.Privileges[0].Luid))
			AdjustTokenPrivileges(token, FALSE, &wanted, 0, NULL, NULL);
	}
	CloseHandle(token);
}

/* The first file or folder in the folder `path`, which is a buffer of MOST_PATH; false when there is none. */
static bool first_entry(wchar_t *path, WIN32_FIND_DATAW *entry)
{
	size_t length = wcslen(path);
	wcscpy(path + length, L"\\*");
	HANDLE search = FindFirstFileW(path, entry);
	path[length] = 0;
	bool found = search != INVALID_HANDLE_VALUE;
	while (found && (wcscmp(entry->cFileName, L".") == 0 || wcscmp(entry->cFileName, L"..") == 0))
		found = FindNextFileW(search, entry);
	if (!found && GetLastError() != ERROR_NO_MORE_FILES && GetLastError() != ERROR_FILE_NOT_FOUND)
		fail_error(GetLastError(), "the folder %s cannot be read", narrow(path));
	if (search != INVALID_HANDLE_VALUE)
		FindClose(search);
	return found;
}

static bool is_real_folder(DWORD attributes)
{
	return attributes != INVALID_FILE_ATTRIBUTES && attributes & FILE_ATTRIBUTE_DIRECTORY &&
	       !(attributes & FILE_ATTRIBUTE_REPARSE_POINT);
}

/* A link is removed, not followed, and a folder only when nothing is in it any more. */
static void remove_entry(const wchar_t *path, DWORD attributes)
{
	SetFileAttributesW(path, FILE_ATTRIBUTE_NORMAL); /* what is read-only cannot be removed */
	if (!(attributes & FILE_ATTRIBUTE_DIRECTORY ? RemoveDirectoryW(path) : DeleteFileW(path)))
		fail_error(GetLastError(), "%s cannot be removed", narrow(path));
}

/* Without recursion: folders may be as deep as a path is long. */
static void empty(const wchar_t *folder)
{
	static wchar_t path[MOST_PATH];
	WIN32_FIND_DATAW entry;
	size_t base = wcslen(folder);
	wcscpy(path, folder);
	for (;;) {
		bool found = first_entry(path, &entry);
		size_t length = wcslen(path);
		if (!found && length == base)
			return;
		if (found) {
			if (length + wcslen(entry.cFileName) + 4 > MOST_PATH) /* room to look into it, too */
				fail("the folder %s is nested too deeply", narrow(folder));
			path[length] = L'\\';
			wcscpy(path + length + 1, entry.cFileName);
			if (is_real_folder(entry.dwFileAttributes))
				continue;
			remove_entry(path, entry.dwFileAttributes);
		} else {
			remove_entry(path, FILE_ATTRIBUTE_DIRECTORY);
		}
		*wcsrchr(path, L'\\') = 0;
	}
}

void recycle_resources(const struct answer *answer)
{
	char *names = read_file(RECYCLE, 1 << 16, NULL);
	if (!names)
		return;
	take_privileges();
	if (!is_real_folder(GetFileAttributesW(RESOURCES)))
		fail("%s is no folder any more", narrow(RESOURCES));
	for (char *name = strtok(names, "\n"); name; name = strtok(NULL, "\n")) {
		wchar_t *path = join(LONG_PATH RESOURCES, name);
		DWORD attributes = GetFileAttributesW(path);
		if (!is_resource(answer, name))
			continue;
		if (is_real_folder(attributes)) {
			empty(path);
			continue;
		}
		/* The role has removed it, or put a link there. */
		if (attributes != INVALID_FILE_ATTRIBUTES)
			remove_entry(path, attributes);
		make_folder(join(RESOURCES, name));
		restrict_to_administrators(path);
	}
	DeleteFileW(RECYCLE);
}
