/* SPDX-License-Identifier: Apache-2.0 */
/* timeout: as on Windows, it does not wait where standard input is no console, which here it never is. */
#include "tool.h"

int main(void)
{
	fprintf(stderr, "ERROR: Input redirection is not supported, exiting the process immediately.\n");
	return 1;
}
