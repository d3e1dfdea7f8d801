/* SPDX-License-Identifier: Apache-2.0 */
/* wmic: Wine's own knows a few aliases, and of some of them it says nothing true. */
#include "tool.h"

static const wchar_t *const known[] = {L"os",        L"computersystem", L"bios", L"cpu",
				       L"csproduct", L"logicaldisk",    L"path", NULL};

int wmain(int argc, wchar_t **argv)
{
	bool knows = false;
	for (int i = 0; known[i] && argc > 1; i++)
		knows = knows || is(argv[1], known[i]);
	if (!knows)
		unavailable_operation(L"wmic", argc > 1 ? argv[1] : L"");
	return run_wines(SYSTEM32 L"\\wbem", L"wmic");
}
