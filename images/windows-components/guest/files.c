/* SPDX-License-Identifier: Apache-2.0 */
/* Files, folders, who may use them, and the medium. */
#include "guest.h"

#include <sddl.h>
#include <stdlib.h>
#include <string.h>

/* The system and the administrators, and whatever is made below. */
#define ADMINISTRATORS_ONLY L"O:BAD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"

char *read_file(const wchar_t *path, size_t most, size_t *size)
{
	HANDLE file = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL);
	LARGE_INTEGER length;
	if (file == INVALID_HANDLE_VALUE)
		return NULL;
	if (!GetFileSizeEx(file, &length) || (unsigned long long)length.QuadPart > most) {
		CloseHandle(file);
		SetLastError(ERROR_FILE_TOO_LARGE);
		return NULL;
	}
	char *data = malloc((size_t)length.QuadPart + 1);
	DWORD got = 0;
	bool whole = data && ReadFile(file, data, (DWORD)length.QuadPart, &got, NULL) && got == length.QuadPart;
	CloseHandle(file);
	if (!whole)
		return NULL;
	data[got] = 0;
	if (size)
		*size = got;
	return data;
}

void write_file(const wchar_t *path, const void *data, size_t size)
{
	wchar_t *beside = wide(format("%s.new", narrow(path)));
	DWORD wrote = 0;
	HANDLE file = CreateFileW(beside, GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, FILE_ATTRIBUTE_NORMAL, NULL);
	if (file == INVALID_HANDLE_VALUE || !WriteFile(file, data, (DWORD)size, &wrote, NULL) || wrote != size)
		fail_error(GetLastError(), "the file %s cannot be written", narrow(path));
	CloseHandle(file);
	if (!MoveFileExW(beside, path, MOVEFILE_REPLACE_EXISTING))
		fail_error(GetLastError(), "the file %s cannot be put in its place", narrow(path));
}

void make_folder(const wchar_t *path)
{
	wchar_t *part = wide(narrow(path));
	for (wchar_t *slash = wcschr(part + 3, L'\\'); slash; slash = wcschr(slash + 1, L'\\')) {
		*slash = 0;
		CreateDirectoryW(part, NULL);
		*slash = L'\\';
	}
	if (!CreateDirectoryW(path, NULL) && GetLastError() != ERROR_ALREADY_EXISTS)
		fail_error(GetLastError(), "the folder %s cannot be made", narrow(path));
}

static void copy_tree(const wchar_t *from, const wchar_t *to)
{
	WIN32_FIND_DATAW entry;
	HANDLE search = FindFirstFileW(join(from, "*"), &entry);
	make_folder(to);
	if (search == INVALID_HANDLE_VALUE)
		fail_error(GetLastError(), "%s cannot be read", narrow(from));
	do {
		const char *name = narrow(entry.cFileName);
		wchar_t *source = join(from, name), *target = join(to, name);
		if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
			continue;
		if (entry.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY)
			copy_tree(source, target);
		else if (!CopyFileW(source, target, FALSE))
			fail_error(GetLastError(), "%s cannot be copied to %s", narrow(source), narrow(target));
		else /* everything on an optical disc is read-only */
			SetFileAttributesW(target, FILE_ATTRIBUTE_NORMAL);
	} while (FindNextFileW(search, &entry));
	FindClose(search);
}

void take_tree(const wchar_t *from, const wchar_t *to)
{
	wchar_t *parent = wide(narrow(to));
	*wcsrchr(parent, L'\\') = 0;
	make_folder(parent);
	if (GetFileAttributesW(from) == INVALID_FILE_ATTRIBUTES)
		make_folder(to);
	else if (!MoveFileExW(from, to, 0))
		copy_tree(from, to);
}

void restrict_to_administrators(const wchar_t *path)
{
	PSECURITY_DESCRIPTOR rights;
	if (!ConvertStringSecurityDescriptorToSecurityDescriptorW(ADMINISTRATORS_ONLY, SDDL_REVISION_1, &rights,
								  NULL) ||
	    !SetFileSecurityW(path, DACL_SECURITY_INFORMATION | PROTECTED_DACL_SECURITY_INFORMATION, rights))
		fail_error(GetLastError(), "the rights of %s cannot be set", narrow(path));
	LocalFree(rights);
}

/* Wine's one user, who is the administrator there, has an identifier of its own. */
static char *as_administrator(char *rights)
{
	char token[256];
	HANDLE process;
	DWORD size;
	wchar_t *sid;
	if (!OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &process) ||
	    !GetTokenInformation(process, TokenUser, token, sizeof token, &size) ||
	    !ConvertSidToStringSidW(((TOKEN_USER *)token)->User.Sid, &sid))
		return rights;
	const char *own = narrow(sid);
	for (char *found; (found = strstr(rights, own)) != NULL;)
		rights = format("%.*sLA%s", (int)(found - rights), rights, found + strlen(own));
	return rights;
}

char *rights_of(const wchar_t *path)
{
	char descriptor[4096];
	DWORD size;
	wchar_t *text;
	SECURITY_INFORMATION what = OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION;
	if (!GetFileSecurityW(path, what, (PSECURITY_DESCRIPTOR)descriptor, sizeof descriptor, &size) ||
	    !ConvertSecurityDescriptorToStringSecurityDescriptorW((PSECURITY_DESCRIPTOR)descriptor, SDDL_REVISION_1,
								  what, &text, NULL))
		return "-";
	return on_stand_in() ? as_administrator(narrow(text)) : narrow(text);
}

/* By what is on it: some systems know a drive's label only since they started. */
wchar_t *find_medium(void)
{
	static wchar_t root[] = L"A:\\";
	SetErrorMode(SEM_FAILCRITICALERRORS); /* an empty drive is not to ask somebody for a disc */
	for (*root = L'D'; *root <= L'Z'; ++*root)
		if (GetFileAttributesW(join(root, "answer.conf")) != INVALID_FILE_ATTRIBUTES &&
		    GetFileAttributesW(join(root, "unattend.xml")) != INVALID_FILE_ATTRIBUTES)
			return root;
	fail("there is no instance medium in any drive");
}
