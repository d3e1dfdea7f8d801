/* SPDX-License-Identifier: Apache-2.0 */
/* The ready marker, the last thing that is written: whoever sees it finds everything done. */
#include "guest.h"

#include <rpc.h>

#include <string.h>

#define BOOT REGISTRY L"\\Boot"

/* Another one at each boot: a key that Windows forgets at shutdown keeps it. */
char *boot_id(void)
{
	wchar_t id[64];
	DWORD size = sizeof id;
	HKEY key;
	if (RegGetValueW(HKEY_LOCAL_MACHINE, BOOT, L"Id", RRF_RT_REG_SZ, NULL, id, &size) == ERROR_SUCCESS)
		return narrow(id);
	UUID uuid;
	UuidCreate(&uuid);
	char *text = format("%08lx-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x", uuid.Data1, uuid.Data2, uuid.Data3,
			    uuid.Data4[0], uuid.Data4[1], uuid.Data4[2], uuid.Data4[3], uuid.Data4[4], uuid.Data4[5],
			    uuid.Data4[6], uuid.Data4[7]);
	LSTATUS status = RegCreateKeyExW(HKEY_LOCAL_MACHINE, BOOT, 0, NULL, REG_OPTION_VOLATILE, KEY_WRITE, NULL, &key, NULL);
	if (status == ERROR_SUCCESS) {
		wchar_t *value = wide(text);
		status = RegSetValueExW(key, L"Id", 0, REG_SZ, (BYTE *)value, (DWORD)((wcslen(value) + 1) * sizeof *value));
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
