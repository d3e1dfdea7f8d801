/* SPDX-License-Identifier: Apache-2.0 */
/* tasklist [/fo table|csv] [/nh] [/fi "IMAGENAME eq NAME" | "PID eq N"]: what runs in Wine. */
#include "tool.h"

#include <tlhelp32.h>

static bool matches(const wchar_t *filter, const PROCESSENTRY32W *entry)
{
	wchar_t value[MAX_PATH];
	if (!filter)
		return true;
	if (swscanf(filter, L"IMAGENAME eq %259l[^\n]", value) == 1 ||
	    swscanf(filter, L"imagename eq %259l[^\n]", value) == 1)
		return is(value, entry->szExeFile);
	if (swscanf(filter, L"PID eq %259ls", value) == 1 || swscanf(filter, L"pid eq %259ls", value) == 1)
		return wcstoul(value, NULL, 10) == entry->th32ProcessID;
	unavailable_operation(L"tasklist", L"/fi");
}

int wmain(int argc, wchar_t **argv)
{
	const wchar_t *filter = NULL;
	bool csv = false, head = true;
	for (int i = 1; i < argc; i++) {
		if (is_option(argv[i], L"nh"))
			head = false;
		else if (is_option(argv[i], L"fi") && i + 1 < argc)
			filter = argv[++i];
		else if (is_option(argv[i], L"fo") && i + 1 < argc &&
			 (is(argv[i + 1], L"csv") || is(argv[i + 1], L"table")))
			csv = is(argv[++i], L"csv");
		else
			unavailable_operation(L"tasklist", argv[i]);
	}
	int found = 0;
	PROCESSENTRY32W entry = {.dwSize = sizeof entry};
	HANDLE all = CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0);
	for (BOOL more = Process32FirstW(all, &entry); more; more = Process32NextW(all, &entry)) {
		if (!matches(filter, &entry))
			continue;
		if (!found++ && head)
			printf(csv ? "\"Image Name\",\"PID\",\"Session Name\",\"Session#\",\"Mem Usage\"\n"
				   : "\nImage Name                     PID Session Name        Session#    Mem Usage\n"
				     "========================= ======== ================ =========== ============\n");
		printf(csv ? "\"%ls\",\"%lu\",\"Services\",\"0\",\"0 K\"\n"
			   : "%-25.25ls %8lu Services                   0          0 K\n",
		       entry.szExeFile, entry.th32ProcessID);
	}
	if (!found)
		printf("INFO: No tasks are running which match the specified criteria.\n");
	return 0;
}
