/* SPDX-License-Identifier: Apache-2.0 */
/* The instance medium: finding it in whichever optical drive there is, mounting and leaving it. */
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/cdrom.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

/* ISO 9660: the primary volume descriptor is sector 16, its volume label at byte 40, blank-padded to 32. */
enum { DESCRIPTOR = 16 * 2048, LABEL = 40, LABEL_SIZE = 32 };

static bool has_our_label(const char *device)
{
	/* Opening without O_NONBLOCK makes the kernel notice a changed medium. */
	int drive = open(device, O_RDONLY | O_CLOEXEC);
	unsigned char sector[2048];
	char label[LABEL_SIZE + 1] = "VMROLE";
	if (drive < 0)
		return false;
	ssize_t got = pread(drive, sector, sizeof sector, DESCRIPTOR);
	close(drive);
	memset(label + 6, ' ', LABEL_SIZE - 6);
	return got == sizeof sector && memcmp(sector, "\001CD001", 6) == 0 &&
	       memcmp(sector + LABEL, label, LABEL_SIZE) == 0;
}

static bool has_medium(const char *device)
{
	int drive = open(device, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (drive < 0)
		return false;
	int status = ioctl(drive, CDROM_DRIVE_STATUS, CDSL_CURRENT);
	close(drive);
	return status == CDS_DISC_OK;
}

bool medium_find(char *device, size_t size)
{
	bool found = false;
	DIR *folder = opendir("/sys/block");
	if (!folder)
		return false;
	for (struct dirent *entry; !found && (entry = readdir(folder));) {
		if (strncmp(entry->d_name, "sr", 2) != 0)
			continue;
		if (snprintf(device, size, "/dev/%s", entry->d_name) < (int)size)
			found = has_medium(device) && has_our_label(device);
	}
	closedir(folder);
	return found;
}

void medium_mount(const char *device)
{
	make_folder(RUNTIME, 0700);
	make_folder(MEDIUM, 0700);
	if (mount(device, MEDIUM, "iso9660", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		fail_errno("the instance medium in %s cannot be mounted", device);
}

void medium_unmount(void)
{
	if (umount2(MEDIUM, 0) < 0)
		fail_errno("the instance medium cannot be unmounted");
	rmdir(MEDIUM);
}
