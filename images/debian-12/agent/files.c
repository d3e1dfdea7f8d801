/* SPDX-License-Identifier: Apache-2.0 */
/* Files and folders. Nobody ever sees half a file: written beside its place, then renamed. */
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

bool exists(const char *path)
{
	struct stat found;
	return lstat(path, &found) == 0;
}

void make_folder(const char *path, mode_t mode)
{
	char part[PATH_MAX];
	if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part)
		fail("a folder's path is longer than the system allows");
	for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		if (mkdir(part, 0755) < 0 && errno != EEXIST)
			fail_errno("the folder %s cannot be made", part);
		*slash = '/';
	}
	if (mkdir(part, mode) < 0 && errno != EEXIST)
		fail_errno("the folder %s cannot be made", part);
	if (chmod(part, mode) < 0)
		fail_errno("the rights of %s cannot be set", part);
}

/* Opens a new file beside `path`; `temporary` receives its name. */
static int open_beside(const char *path, mode_t mode, char temporary[PATH_MAX])
{
	if (snprintf(temporary, PATH_MAX, "%s.vmrole-new", path) >= PATH_MAX)
		fail("a file's path is longer than the system allows");
	unlink(temporary);
	int file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (file < 0 || fchmod(file, mode) < 0) /* the umask must not narrow it */
		fail_errno("the file %s cannot be made", path);
	return file;
}

static void put_in_place(int file, const char *temporary, const char *path)
{
	if (close(file) < 0 || rename(temporary, path) < 0)
		fail_errno("the file %s cannot be put in its place", path);
}

void write_file(const char *path, mode_t mode, const void *data, size_t size)
{
	char temporary[PATH_MAX];
	int file = open_beside(path, mode, temporary);
	for (size_t done = 0; done < size;) {
		ssize_t wrote = write(file, (const char *)data + done, size - done);
		if (wrote < 0 && errno == EINTR)
			continue;
		if (wrote < 0) {
			int why = errno;
			unlink(temporary);
			errno = why;
			fail_errno("the file %s cannot be written", path);
		}
		done += (size_t)wrote;
	}
	put_in_place(file, temporary, path);
}

void write_text(const char *path, mode_t mode, const char *format, ...)
{
	char *text;
	va_list values;
	va_start(values, format);
	int length = vasprintf(&text, format, values);
	va_end(values);
	if (length < 0)
		fail("the guest is out of memory");
	write_file(path, mode, text, (size_t)length);
	free(text);
}

char *read_file(const char *path, size_t most, size_t *size)
{
	int file = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct stat found;
	if (file < 0)
		return NULL;
	if (fstat(file, &found) < 0 || !S_ISREG(found.st_mode) || (size_t)found.st_size > most) {
		close(file);
		errno = EFBIG;
		return NULL;
	}
	/* Files of /proc say 0 and are read up to `most`. */
	size_t room = found.st_size ? (size_t)found.st_size : most, done = 0;
	char *data = malloc(room + 1);
	if (!data)
		fail("the guest is out of memory");
	while (done < room) {
		ssize_t got = read(file, data + done, room - done);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			int why = errno;
			close(file);
			free(data);
			errno = why;
			return NULL;
		}
		if (got == 0)
			break;
		done += (size_t)got;
	}
	close(file);
	data[done] = 0;
	if (size)
		*size = done;
	return data;
}

void copy_file(const char *from, const char *to, mode_t mode)
{
	char temporary[PATH_MAX];
	int source = open(from, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct stat found;
	if (source < 0 || fstat(source, &found) < 0)
		fail_errno("%s cannot be read", from);
	int file = open_beside(to, mode, temporary);
	for (off_t left = found.st_size; left > 0;) {
		ssize_t copied = sendfile(file, source, NULL, (size_t)left);
		if (copied < 0 && errno == EINTR)
			continue;
		if (copied <= 0) {
			int why = copied ? errno : EIO;
			unlink(temporary);
			errno = why;
			fail_errno("%s cannot be copied to %s", from, to);
		}
		left -= copied;
	}
	close(source);
	put_in_place(file, temporary, to);
}

void copy_tree(const char *from, const char *to)
{
	DIR *folder = opendir(from);
	if (!folder)
		fail_errno("%s cannot be read", from);
	for (struct dirent *entry; (errno = 0, entry = readdir(folder));) {
		char source[PATH_MAX], target[PATH_MAX];
		struct stat found;
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (snprintf(source, sizeof source, "%s/%s", from, entry->d_name) >= (int)sizeof source ||
		    snprintf(target, sizeof target, "%s/%s", to, entry->d_name) >= (int)sizeof target)
			fail("a path of the payload is longer than the system allows");
		if (lstat(source, &found) < 0)
			fail_errno("%s cannot be read", source);
		if (S_ISDIR(found.st_mode)) {
			make_folder(target, 0755);
			copy_tree(source, target);
		} else if (S_ISREG(found.st_mode)) {
			copy_file(source, target, found.st_mode & 0111 ? 0755 : 0644);
		} else {
			fail("%s is neither a file nor a folder", source);
		}
	}
	if (errno)
		fail_errno("%s cannot be read", from);
	closedir(folder);
}

void link_symbolic(const char *target, const char *path)
{
	char temporary[PATH_MAX];
	if (snprintf(temporary, sizeof temporary, "%s.vmrole-new", path) >= (int)sizeof temporary)
		fail("a link's path is longer than the system allows");
	unlink(temporary);
	if (symlink(target, temporary) < 0 || rename(temporary, path) < 0)
		fail_errno("the link %s cannot be made", path);
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *where)
{
	(void)status, (void)kind, (void)where;
	remove(path);
	return 0;
}

void remove_tree(const char *path)
{
	nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}
