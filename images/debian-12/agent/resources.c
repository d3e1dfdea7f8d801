/* SPDX-License-Identifier: Apache-2.0 */
/* Local resources: a file system of the declared size each, in a file of the guest's disk. */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/loop.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
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

/* Makes the file `path`, or one that is there again, `size` bytes of zeros. Reserved, not only promised: what was declared
 * is there until the machine goes. */
static bool reserve(int file, off_t size)
{
	struct statvfs disk;
	struct stat now;
	/* Asked first: what fills the disk until it fails takes the room from all that is written beside it. */
	if (fstatvfs(file, &disk) == 0 && fstat(file, &now) == 0 &&
	    (uint64_t)size > (uint64_t)disk.f_bavail * disk.f_frsize + (uint64_t)now.st_blocks * 512) {
		errno = ENOSPC;
		return false;
	}
	if (fallocate(file, FALLOC_FL_ZERO_RANGE, 0, size) == 0)
		return true;
	/* Not every file system can do that. */
	return errno == EOPNOTSUPP && ftruncate(file, 0) == 0 && fallocate(file, 0, 0, size) == 0;
}

static void make_image(const struct resource *resource, const char *path)
{
	bool is_new = !exists(path);
	int file = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (file < 0)
		fail_errno("the local resource %s cannot be made", resource->name);
	if (!reserve(file, (off_t)size_of_image(resource->megabytes))) {
		int why = errno;
		if (is_new)
			unlink(path);
		errno = why;
		fail_errno("the guest's disk has no room for the local resource %s of %lu MB", resource->name,
			   resource->megabytes);
	}
	close(file);
	char inodes[24];
	snprintf(inodes, sizeof inodes, "%lu", resource->megabytes < 16 ? 256 : resource->megabytes * 16);
	char *argv[] = {"/usr/sbin/mkfs.ext4",
			"-q",
			"-F",
			"-b",
			"4096",
			"-I",
			"256",
			"-m",
			"0",
			"-N",
			inodes,
			"-O",
			"^has_journal,^resize_inode,^metadata_csum,uninit_bg",
			"-E",
			"nodiscard,lazy_itable_init=1,assume_storage_prezeroed=1",
			(char *)path,
			NULL};
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

static void folder_of(const struct resource *resource, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, RESOURCES "/%s", resource->name);
}

/* Whether the file system in the file `path` could be mounted; all before that has to work. */
static bool can_mount(const struct resource *resource, const char *path)
{
	char target[PATH_MAX], device[32];
	folder_of(resource, target);
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
	int mounted = mount(device, target, "ext4", MS_NODEV | MS_NOSUID, NULL), why = errno;
	close(loop);
	close(file);
	close(control);
	errno = why;
	return mounted == 0;
}

static void mount_image(const struct resource *resource, const char *path)
{
	if (!can_mount(resource, path))
		fail_errno("the local resource %s cannot be mounted", resource->name);
}

/* Who may use a folder. */
struct rights {
	uid_t owner;
	gid_t group;
	mode_t mode;
	struct {
		char data[8192];
		ssize_t size; /* not positive: there is none */
	} lists[2];
};

static const char *const access_lists[2] = {"system.posix_acl_access", "system.posix_acl_default"};

static struct rights rights_of(const char *folder)
{
	struct rights rights = {.mode = 0700};
	struct stat found;
	if (stat(folder, &found) < 0)
		return rights;
	rights.owner = found.st_uid;
	rights.group = found.st_gid;
	rights.mode = found.st_mode & 07777;
	for (int i = 0; i < 2; i++)
		rights.lists[i].size =
			getxattr(folder, access_lists[i], rights.lists[i].data, sizeof rights.lists[i].data);
	return rights;
}

/* A file system that was just made: nothing but the folder that mkfs puts there is in it, and a declared resource is
 * empty. */
static void mount_new(const struct resource *resource, const char *path, const struct rights *rights)
{
	char target[PATH_MAX], lost[PATH_MAX];
	folder_of(resource, target);
	mount_image(resource, path);
	bool done = chown(target, rights->owner, rights->group) == 0 && chmod(target, rights->mode) == 0;
	for (int i = 0; i < 2 && done; i++)
		done = rights->lists[i].size <= 0 ||
		       setxattr(target, access_lists[i], rights->lists[i].data, (size_t)rights->lists[i].size, 0) == 0;
	if (!done)
		fail_errno("the rights of the local resource %s cannot be set", resource->name);
	snprintf(lost, sizeof lost, RESOURCES "/%.250s/lost+found", resource->name);
	rmdir(lost);
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
		mount_new(&answer->resources[i], path, &(struct rights){.mode = 0700});
	}
}

/* Empties the resource by formatting it anew: nothing that is in it is looked at, however it is called, linked, nested or
 * protected. Only its folder is, for who may use it; a file system that is broken has the rights of a new one. */
static void recycle(const struct resource *resource, const char *path)
{
	char target[PATH_MAX];
	struct rights rights = {.mode = 0700};
	folder_of(resource, target);
	if (can_mount(resource, path)) {
		rights = rights_of(target);
		if (umount2(target, UMOUNT_NOFOLLOW) < 0)
			fail_errno("the local resource %s cannot be unmounted", resource->name);
	}
	make_image(resource, path);
	mount_new(resource, path, &rights);
}

/* Whether `name` is a line of `text`. */
static bool has_line(const char *text, const char *name)
{
	size_t length = strlen(name);
	for (const char *line = text; line && *line; line = strchr(line, '\n'), line += line != NULL)
		if (strncmp(line, name, length) == 0 && (line[length] == '\n' || !line[length]))
			return true;
	return false;
}

void mount_resources(const struct answer *answer)
{
	char path[PATH_MAX], *names = read_file(RECYCLE, 1 << 16, NULL);
	for (int i = 0; i < answer->resource_count; i++) {
		image_of(&answer->resources[i], path);
		if (has_line(names, answer->resources[i].name))
			recycle(&answer->resources[i], path);
		else
			mount_image(&answer->resources[i], path);
	}
	unlink(RECYCLE);
	free(names);
}
