/* SPDX-License-Identifier: Apache-2.0 */
/* Windows Update off, and no password left in any copy of the answer file. */
#include "guest.h"

#include <stdlib.h>
#include <string.h>

#define POLICY L"SOFTWARE\\Policies\\Microsoft\\Windows\\WindowsUpdate\\AU"
#define DELETED "*SENSITIVE*DATA*DELETED*"

const wchar_t *const answer_files[] = {ANSWER_FILE, L"C:\\Windows\\Panther\\unattend.xml",
				       L"C:\\Windows\\Panther\\Unattend\\unattend.xml",
				       L"C:\\Windows\\System32\\Sysprep\\unattend.xml", NULL};

void turn_updates_off(void)
{
	DWORD on = 1;
	LSTATUS status = RegSetKeyValueW(HKEY_LOCAL_MACHINE, POLICY, L"NoAutoUpdate", REG_DWORD, &on, sizeof on);
	if (status != ERROR_SUCCESS)
		fail_error((DWORD)status, "the policy of Windows Update cannot be set");
	SC_HANDLE manager = OpenSCManagerW(NULL, NULL, SC_MANAGER_CONNECT);
	SC_HANDLE service = manager ? OpenServiceW(manager, L"wuauserv", SERVICE_CHANGE_CONFIG) : NULL;
	if (!service && GetLastError() != ERROR_SERVICE_DOES_NOT_EXIST)
		fail_error(GetLastError(), "the service of Windows Update cannot be reached");
	if (service && !ChangeServiceConfigW(service, SERVICE_NO_CHANGE, SERVICE_DISABLED, SERVICE_NO_CHANGE, NULL, NULL,
					     NULL, NULL, NULL, NULL, NULL))
		fail_error(GetLastError(), "the service of Windows Update cannot be disabled");
	if (service)
		CloseServiceHandle(service);
	if (manager)
		CloseServiceHandle(manager);
}

/* The value of the next password in `text`, which elements named ...Password hold, or NULL. */
static char *next_password(char *text, size_t *length)
{
	for (char *tag = text; (tag = strstr(tag, "Password>")) != NULL; tag++) {
		char *name = tag;
		while (name > text && name[-1] != '<')
			name--;
		if (*name == '/')
			continue;
		char *end = strstr(tag + 9, "Password>"), *value = strstr(tag + 9, "<Value>");
		char *stop = value ? strchr(value + 7, '<') : NULL;
		if (!value || !stop || (end && value > end))
			continue;
		*length = (size_t)(stop - value - 7);
		return value + 7;
	}
	return NULL;
}

static bool is_deleted(const char *value, size_t length)
{
	return length == 0 || (length == strlen(DELETED) && strncmp(value, DELETED, length) == 0);
}

bool holds_password(const wchar_t *path)
{
	size_t length;
	char *text = read_file(path, 1 << 20, NULL);
	for (char *value = text; value && (value = next_password(value, &length)) != NULL;)
		if (!is_deleted(value, length))
			return true;
	return false;
}

static char *scrubbed(char *text)
{
	size_t length;
	char *done = "", *value;
	while ((value = next_password(text, &length)) != NULL) {
		char *rest = value + length;
		done = format("%s%.*s%s", done, (int)(value - text), text, DELETED);
		SecureZeroMemory(value, length);
		text = rest;
	}
	return format("%s%s", done, text);
}

void scrub_answer_files(const wchar_t *medium)
{
	wchar_t *given = join(medium, "unattend.xml");
	char *text = read_file(given, 1 << 20, NULL);
	if (text) { /* the answer file of this machine takes the place of the default one */
		text = scrubbed(text);
		write_file(ANSWER_FILE, text, strlen(text));
	}
	for (const wchar_t *const *path = answer_files; *path; path++)
		if (holds_password(*path)) {
			text = scrubbed(read_file(*path, 1 << 20, NULL));
			write_file(*path, text, strlen(text));
		}
}
