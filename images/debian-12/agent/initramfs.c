/* SPDX-License-Identifier: Apache-2.0 */
/* /init of the initramfs: the drivers of the root disk, the root disk, and on. Nothing is searched for or waited out.
 * The builder lays it out: /first/NN-NAME.ko are needed for the root disk, /second/NN-NAME.ko can come later. */
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ROOT_DISK "/dev/vda"
enum { PATIENCE_MS = 20000, STEP_MS = 2 };

static _Noreturn void give_up(const char *what)
{
	dprintf(2, "vmrole: failed %s: %s\n", what, strerror(errno));
	sync();
	_exit(1); /* the kernel panics, which says the rest */
}

static int visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/* Loads all modules of a folder in the order of their names. One that does not load is not needed here. */
static void load_modules(const char *folder)
{
	struct dirent **entries;
	int count = scandir(folder, &entries, visible, alphasort);
	for (int i = 0; i < count; i++) {
		char path[PATH_MAX];
		snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
		int file = open(path, O_RDONLY | O_CLOEXEC);
		if (file >= 0) {
			syscall(SYS_finit_module, file, "", 0);
			close(file);
		}
	}
}

void initramfs(void)
{
	mkdir("/dev", 0755);
	mkdir("/root", 0755);
	if (mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, NULL) < 0 && errno != EBUSY)
		give_up("/dev cannot be mounted");
	int console = open("/dev/console", O_RDWR);
	for (int stream = 0; console >= 0 && stream < 3; stream++)
		dup2(console, stream);
	load_modules("/first");
	for (int waited = 0; access(ROOT_DISK, F_OK) < 0; waited += STEP_MS) {
		if (waited >= PATIENCE_MS)
			give_up("the root disk does not appear");
		usleep(STEP_MS * 1000);
	}
	if (mount(ROOT_DISK, "/root", "ext4", MS_NOATIME, NULL) < 0)
		give_up("the root disk cannot be mounted");
	/* The other drivers are loaded on the second processor while systemd starts on the first. */
	if (fork() == 0) {
		load_modules("/second");
		_exit(0);
	}
	if (mount("/dev", "/root/dev", NULL, MS_MOVE, NULL) < 0)
		give_up("/dev cannot be moved");
	if (chdir("/root") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
		give_up("the root disk cannot become the root");
	execl("/sbin/init", "/sbin/init", (char *)NULL);
	give_up("systemd cannot be started");
}
