/* SPDX-License-Identifier: Apache-2.0 */
/* Windows Update off, and no password or product key left in any copy of the answer file. */
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
	if (service && !ChangeServiceConfigW(service, SERVICE_NO_CHANGE, SERVICE_DISABLED, SERVICE_NO_CHANGE, NULL,
					     NULL, NULL, NULL, NULL, NULL, NULL))
		fail_error(GetLastError(), "the service of Windows Update cannot be disabled");
	if (service)
		CloseServiceHandle(service);
	if (manager)
		CloseServiceHandle(manager);
}

/* Where in an answer file secrets are looked for. */
struct scan {
	char *at;
	bool inside; /* an element that has one */
};

/* Whether the name of a tag, without its prefix, has that end (or is that). */
static bool is_named(const char *name, const char *wanted, bool whole)
{
	size_t length = strcspn(name, " \t\r\n/>"), size = strlen(wanted);
	const char *colon = memchr(name, ':', length);
	if (colon) {
		length -= (size_t)(colon + 1 - name);
		name = colon + 1;
	}
	return (whole ? length == size : length >= size) && strncmp(name + length - size, wanted, size) == 0;
}

/* Behind the comment or the CDATA section that begins here, or NULL. */
static char *skipped(char *at)
{
	bool comment = strncmp(at, "<!--", 4) == 0;
	if (!comment && strncmp(at, "<![CDATA[", 9) != 0)
		return NULL;
	char *end = strstr(at + 4, comment ? "-->" : "]]>");
	return end ? end + 3 : at + strlen(at);
}

/* The end of the text that begins here, and whether there is more in it than comments and blanks. */
static char *end_of_text(char *at, bool *filled)
{
	char *behind;
	*filled = false;
	for (; *at && (*at != '<' || (behind = skipped(at)) != NULL); at = *at == '<' ? behind : at + 1)
		*filled |= *at == '<' ? at[2] == '[' : !strchr(" \t\r\n", *at);
	return at;
}

/* The next secret: the text of an element named ...Password or ProductKey, or that of a Value or Key in it; or NULL. */
static char *next_secret(struct scan *scan, size_t *length)
{
	while ((scan->at = strchr(scan->at, '<')) != NULL) {
		char *behind = skipped(scan->at), *name = scan->at + 1, *end = strchr(name, '>');
		bool closing = *name == '/', filled;
		if (behind || !end) {
			scan->at = behind ? behind : name;
			continue;
		}
		name += closing;
		bool owner = is_named(name, "Password", false) || is_named(name, "ProductKey", true);
		if (owner && end[-1] != '/')
			scan->inside = !closing;
		scan->at = end + 1;
		if (closing || end[-1] == '/' || !scan->inside ||
		    !(owner || is_named(name, "Value", true) || is_named(name, "Key", true)))
			continue;
		char *text = scan->at;
		scan->at = end_of_text(text, &filled);
		*length = (size_t)(scan->at - text);
		if (filled)
			return text;
	}
	return NULL;
}

static bool is_deleted(const char *value, size_t length)
{
	return length == strlen(DELETED) && strncmp(value, DELETED, length) == 0;
}

bool holds_password(const wchar_t *path)
{
	size_t length;
	char *text = read_file(path, 1 << 20, NULL);
	struct scan scan = {text, false};
	for (char *value; text && (value = next_secret(&scan, &length)) != NULL;)
		if (!is_deleted(value, length))
			return true;
	return false;
}

static char *scrubbed(char *text)
{
	size_t length;
	char *done = "", *value;
	struct scan scan = {text, false};
	while ((value = next_secret(&scan, &length)) != NULL) {
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
