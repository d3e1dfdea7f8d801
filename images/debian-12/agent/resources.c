/* SPDX-License-Identifier: Apache-2.0 */
/* Local resources: a file system of the declared size each, in a file of the guest's disk. */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/loop.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define SPARES STATE "/spare"
enum { MIB = 1 << 20, MOST_SPARES = 4 };

static void image_of(const struct resource *resource, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, STATE "/resources/%s.ext4", resource->name);
}

/* The size of a file system in which `megabytes` can be used. It needs for itself: superblock copies and bitmaps (1/2048),
 * the inode table (16 inodes of 256 bytes per MiB: 1/256), the extents of the files, some folders, and what the kernel
 * holds back against a disk that is full to the last block: a fiftieth of it, at most 4096 blocks. */
static unsigned long size_of_image(unsigned long megabytes)
{
	unsigned long size = megabytes * MIB + MIB + megabytes * (MIB / 256) + megabytes * (MIB / 1024);
	unsigned long held_back = size / 49;
	return size + (held_back < 16 * MIB ? held_back : 16 * MIB);
}

static void make_image(const struct resource *resource, const char *path)
{
	int file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (file < 0)
		fail_errno("the local resource %s cannot be made", resource->name);
	/* Reserved, not only promised: what was declared is there until the machine goes. */
	if (fallocate(file, 0, 0, (off_t)size_of_image(resource->megabytes)) < 0) {
		int why = errno;
		unlink(path);
		errno = why;
		fail_errno("the guest's disk has no room for the local resource %s of %lu MB", resource->name,
			   resource->megabytes);
	}
	close(file);
	char inodes[24];
	snprintf(inodes, sizeof inodes, "%lu", resource->megabytes < 16 ? 256 : resource->megabytes * 16);
	char *argv[] = {"/usr/sbin/mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "-N", inodes, "-O",
			"^has_journal,^resize_inode,^metadata_csum,uninit_bg", "-E",
			"nodiscard,lazy_itable_init=1,assume_storage_prezeroed=1", (char *)path, NULL};
	int code = run(argv, NULL, 0);
	if (code != 0)
		fail("the local resource %s cannot be formatted: mkfs.ext4 ended with code %d", resource->name, code);
}

/* A formatted file system of that size which make_spares() left: formatting takes a quarter of a second. */
static bool take_spare(unsigned long megabytes, const char *path)
{
	char spare[PATH_MAX];
	for (int n = 0; n < MOST_SPARES; n++) {
		snprintf(spare, sizeof spare, SPARES "/%lu.%d", megabytes, n);
		if (rename(spare, path) == 0)
			return true;
	}
	return false;
}

void make_spares(unsigned long megabytes, int count)
{
	char path[PATH_MAX];
	struct resource resource = {.megabytes = megabytes, .name = "spare"};
	make_folder(STATE, 0700);
	make_folder(SPARES, 0700);
	for (int n = 0; n < count && n < MOST_SPARES; n++) {
		snprintf(path, sizeof path, SPARES "/%lu.%d", megabytes, n);
		make_image(&resource, path);
	}
}

static void mount_image(const struct resource *resource, const char *path)
{
	char target[PATH_MAX], device[32];
	snprintf(target, sizeof target, RESOURCES "/%s", resource->name);
	make_folder(target, 0700);
	int control = -1, file = open(path, O_RDWR | O_CLOEXEC), loop = -1;
	for (int waited = 0; waited < 10000 && control < 0; waited += 20) {
		control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
		if (control < 0)
			usleep(20000); /* its driver is still being loaded */
	}
	if (file < 0 || control < 0)
		fail_errno("the local resource %s cannot be opened", resource->name);
	for (int attempt = 0; attempt < 50; attempt++) { /* somebody else may take the free device first */
		struct loop_config config = {.fd = (unsigned)file, .info = {.lo_flags = LO_FLAGS_AUTOCLEAR}};
		int number = ioctl(control, LOOP_CTL_GET_FREE);
		snprintf(device, sizeof device, "/dev/loop%d", number);
		loop = number < 0 ? -1 : open(device, O_RDWR | O_CLOEXEC);
		if (loop >= 0 && ioctl(loop, LOOP_CONFIGURE, &config) == 0)
			break;
		if (loop >= 0)
			close(loop);
		loop = -1;
		usleep(10000);
	}
	if (loop < 0)
		fail_errno("the local resource %s gets no loop device", resource->name);
	if (mount(device, target, "ext4", MS_NODEV | MS_NOSUID, NULL) < 0)
		fail_errno("the local resource %s cannot be mounted", resource->name);
	close(loop);
	close(file);
	close(control);
	if (chmod(target, 0700) < 0)
		fail_errno("the rights of the local resource %s cannot be set", resource->name);
}

void make_resources(const struct answer *answer)
{
	char path[PATH_MAX];
	make_folder(STATE, 0700);
	make_folder(STATE "/resources", 0700);
	make_folder(RESOURCES, 0755);
	for (int i = 0; i < answer->resource_count; i++) {
		image_of(&answer->resources[i], path);
		if (!take_spare(answer->resources[i].megabytes, path))
			make_image(&answer->resources[i], path);
		mount_image(&answer->resources[i], path);
		char lost[PATH_MAX]; /* a declared resource is empty */
		snprintf(lost, sizeof lost, RESOURCES "/%.250s/lost+found", answer->resources[i].name);
		rmdir(lost);
	}
}

void mount_resources(const struct answer *answer)
{
	char path[PATH_MAX];
	for (int i = 0; i < answer->resource_count; i++) {
		image_of(&answer->resources[i], path);
		mount_image(&answer->resources[i], path);
	}
}
