/* SPDX-License-Identifier: Apache-2.0 */
/* What the harness reads on the serial console: whole lines, each in one write. */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Shared with the processes of in_parallel(): of several failures only the first is announced. */
static int *failed;

__attribute__((constructor)) static void share_failed(void)
{
	failed = mmap(NULL, sizeof *failed, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (failed == MAP_FAILED)
		abort();
}

static void announce(char *line, size_t size, int length)
{
	if (length < 0)
		return;
	if ((size_t)length > size - 2)
		length = (int)size - 2;
	for (int i = 0; i < length; i++) /* one line, whatever a name on the medium contains */
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	line[length++] = '\n';
	int console = open("/dev/ttyS0", O_WRONLY | O_NOCTTY | O_CLOEXEC);
	if (console < 0)
		console = open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC);
	if (console < 0)
		return;
	for (int done = 0; done < length;) {
		ssize_t wrote = write(console, line + done, (size_t)(length - done));
		if (wrote < 0 && errno != EINTR)
			break;
		if (wrote > 0)
			done += (int)wrote;
	}
	close(console);
}

void stage(const char *format, ...)
{
	char line[512] = "vmrole: stage ";
	size_t start = strlen(line);
	va_list values;
	va_start(values, format);
	int length = vsnprintf(line + start, sizeof line - start - 1, format, values);
	va_end(values);
	announce(line, sizeof line, length < 0 ? length : length + (int)start);
}

static _Noreturn void fail_with(const char *why, const char *format, va_list values)
{
	char line[1024] = "vmrole: failed ";
	size_t start = strlen(line);
	int length = vsnprintf(line + start, sizeof line - start - 1, format, values) + (int)start;
	if (length > (int)sizeof line - 2)
		length = (int)sizeof line - 2;
	if (why)
		length += snprintf(line + length, sizeof line - (size_t)length - 1, ": %s", why);
	if (__sync_lock_test_and_set(failed, 1) == 0)
		announce(line, sizeof line, length);
	_exit(1);
}

void fail(const char *format, ...)
{
	va_list values;
	va_start(values, format);
	fail_with(NULL, format, values);
}

void fail_errno(const char *format, ...)
{
	const char *why = strerror(errno);
	va_list values;
	va_start(values, format);
	fail_with(why, format, values);
}
