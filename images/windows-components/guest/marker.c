/* SPDX-License-Identifier: Apache-2.0 */
/* The ready marker, the last thing that is written: whoever sees it finds everything done. */
#include "guest.h"

#include <rpc.h>

#include <string.h>

#define BOOT REGISTRY L"\\Boot"

/* Another one at each boot: a key that Windows forgets at shutdown keeps it. */
static char *kept_boot_id(void)
{
	wchar_t id[64];
	DWORD size = sizeof id;
	if (RegGetValueW(HKEY_LOCAL_MACHINE, BOOT, L"Id", RRF_RT_REG_SZ, NULL, id, &size) == ERROR_SUCCESS)
		return narrow(id);
	return NULL;
}

static char *boot_id(void)
{
	HKEY key;
	char *kept = kept_boot_id();
	if (kept)
		return kept;
	UUID uuid;
	UuidCreate(&uuid);
	char *text = format("%08lx-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x", uuid.Data1, uuid.Data2, uuid.Data3,
			    uuid.Data4[0], uuid.Data4[1], uuid.Data4[2], uuid.Data4[3], uuid.Data4[4], uuid.Data4[5],
			    uuid.Data4[6], uuid.Data4[7]);
	LSTATUS status =
		RegCreateKeyExW(HKEY_LOCAL_MACHINE, BOOT, 0, NULL, REG_OPTION_VOLATILE, KEY_WRITE, NULL, &key, NULL);
	if (status == ERROR_SUCCESS) {
		wchar_t *value = wide(text);
		status = RegSetValueExW(key, L"Id", 0, REG_SZ, (BYTE *)value,
					(DWORD)((wcslen(value) + 1) * sizeof *value));
		RegCloseKey(key);
	}
	if (status != ERROR_SUCCESS)
		fail_error((DWORD)status, "the boot id cannot be kept");
	return text;
}

void announce_ready(const struct answer *answer)
{
	char *boot = boot_id(), *line = format("%s %s %s\n", answer->instance, COMPONENTS_VERSION, boot);
	write_file(READY, line, strlen(line));
	stage(format("ready %s %s", answer->instance, boot));
}

/* A machine that lost its power still has the marker of the boot before. */
char *read_ready(void)
{
	char *marker = read_file(READY, 4096, NULL), *boot = kept_boot_id();
	if (!marker || !boot)
		return NULL;
	marker[strcspn(marker, "\r\n")] = 0;
	const char *last = strrchr(marker, ' ');
	return last && strcmp(last + 1, boot) == 0 ? marker : NULL;
}
