/* SPDX-License-Identifier: Apache-2.0 */
/* tzutil /g | /s ID: the time zone, which is UTC and stays that. */
#include "tool.h"

#define KEY L"SYSTEM\\CurrentControlSet\\Control\\TimeZoneInformation"

int wmain(int argc, wchar_t **argv)
{
	wchar_t zone[128];
	DWORD size = sizeof zone;
	if (argc == 2 && is_option(argv[1], L"g")) {
		if (RegGetValueW(HKEY_LOCAL_MACHINE, KEY, L"TimeZoneKeyName", RRF_RT_REG_SZ, NULL, zone, &size))
			wcscpy(zone, L"UTC");
		printf("%ls", zone);
		return 0;
	}
	if (argc == 3 && is_option(argv[1], L"s") && is(argv[2], L"UTC"))
		return 0;
	unavailable_operation(L"tzutil", argc > 1 ? argv[1] : L"");
}
