/* SPDX-License-Identifier: Apache-2.0 */
/* net start | stop | user NAME PASSWORD; Wine's own does the first two, the machine the last. Nothing else is there. */
#include "tool.h"

int wmain(int argc, wchar_t **argv)
{
	if (argc > 1 && (is(argv[1], L"start") || is(argv[1], L"stop")))
		return run_wines(SYSTEM32, L"net");
	if (argc == 4 && is(argv[1], L"user") && argv[3][0] != L'/')
		return ask((const wchar_t *[]){L"password", argv[2], argv[3]}, 3);
	if (argc == 3 && is(argv[1], L"user") && is(argv[2], L"Administrator")) {
		printf("User name                    Administrator\nAccount active               Yes\n"
		       "Local Group Memberships      *Administrators\nThe command completed successfully.\n");
		return 0;
	}
	unavailable_operation(L"net", argc > 1 ? argv[1] : L"");
}
