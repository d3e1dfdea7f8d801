/* SPDX-License-Identifier: Apache-2.0 */
/* One program, four faces: /init of the initramfs, the resident agent, the integration components, and these in a guest
 * that has no agent, where cloud-init installs them. */
#include "agent.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (getpid() == 1)
		initramfs();
	umask(022);
	if (argc > 1 && strcmp(argv[1], "--version") == 0) {
		puts(COMPONENTS_VERSION);
		return 0;
	}
	if (argc > 1 && strcmp(argv[1], "specialize") == 0)
		components_specialize();
	if (argc > 1 && strcmp(argv[1], "restore") == 0)
		components_restore();
	if (argc == 4 && strcmp(argv[1], "spare") == 0) {
		make_spares(strtoul(argv[2], NULL, 10), atoi(argv[3]));
		return 0;
	}
	if (argc == 2 && strcmp(argv[1], "install") == 0) {
		components_install();
		return 0;
	}
	if (argc == 2 && strcmp(argv[1], "generalize") == 0) {
		components_generalize();
		return 0;
	}
	if (argc == 2 && strcmp(argv[1], "renew") == 0) {
		renew();
		return 0;
	}
	if (argc > 1) {
		fprintf(stderr,
			"usage: %s [specialize|restore|install|generalize|spare MEGABYTES COUNT|renew|--version]\n",
			argv[0]);
		return 2;
	}
	resident();
}
