/* SPDX-License-Identifier: Apache-2.0 */
/* shutdown /r | /s | /p | /a [/t SECONDS] [/f] [/c TEXT] [/d REASON]: the machine really restarts or switches itself off. */
#include "tool.h"

int wmain(int argc, wchar_t **argv)
{
	const wchar_t *action = NULL, *seconds = NULL;
	for (int i = 1; i < argc; i++) {
		if (is_option(argv[i], L"r") || is_option(argv[i], L"g"))
			action = L"reboot";
		else if (is_option(argv[i], L"s"))
			action = L"poweroff";
		else if (is_option(argv[i], L"a"))
			action = L"cancel";
		else if (is_option(argv[i], L"p"))
			action = L"poweroff", seconds = L"0";
		else if (is_option(argv[i], L"t") && i + 1 < argc)
			seconds = argv[++i];
		else if ((is_option(argv[i], L"c") || is_option(argv[i], L"d")) && i + 1 < argc)
			i++;
		else if (is_option(argv[i], L"f") || is_option(argv[i], L"soft"))
			continue;
		else
			unavailable_operation(L"shutdown", argv[i]);
	}
	if (!action)
		unavailable_operation(L"shutdown", L"/?");
	return ask((const wchar_t *[]){L"power", action, seconds ? seconds : L"30"}, 3);
}
