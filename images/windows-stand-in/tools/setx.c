/* SPDX-License-Identifier: Apache-2.0 */
/* setx NAME VALUE [/m]: a variable of the user's or the machine's environment, for processes to come. */
#include "tool.h"

#define MACHINE L"SYSTEM\\CurrentControlSet\\Control\\Session Manager\\Environment"

int wmain(int argc, wchar_t **argv)
{
	const wchar_t *words[2];
	int count = 0;
	bool machine = false;
	for (int i = 1; i < argc; i++) {
		if (is_option(argv[i], L"m"))
			machine = true;
		else if (argv[i][0] == L'/' && argv[i][1] && !argv[i][2])
			unavailable_operation(L"setx", argv[i]);
		else if (count == 2)
			unavailable(L"setx");
		else
			words[count++] = argv[i];
	}
	if (count != 2) {
		fprintf(stderr, "ERROR: Invalid syntax.\n");
		return 1;
	}
	DWORD kind = wcschr(words[1], L'%') ? REG_EXPAND_SZ : REG_SZ;
	LSTATUS status =
		RegSetKeyValueW(machine ? HKEY_LOCAL_MACHINE : HKEY_CURRENT_USER, machine ? MACHINE : L"Environment",
				words[0], kind, words[1], (DWORD)((wcslen(words[1]) + 1) * sizeof(wchar_t)));
	if (status) {
		fprintf(stderr, "ERROR: the registry cannot be written: %ld\n", status);
		return 1;
	}
	printf("\nSUCCESS: Specified value was saved.\n");
	return 0;
}
