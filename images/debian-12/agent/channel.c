/* SPDX-License-Identifier: Apache-2.0 */
/* The channel's frames over a virtio-serial port. The host may come, go and come back at any moment. */
#include "channel.h"
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define PORT_NAME "org.vmrole.agent.0"
static const unsigned char MAGIC[4] = {0x7f, 'V', 'R', '1'};

static int port = -1;
static unsigned char buffer[FRAME_HEAD + FRAME_MOST + 1];
static size_t filled;       /* bytes in `buffer` */
static size_t given;        /* of them, the frame that was returned last */
static unsigned char saved; /* the byte behind it, in whose place a 0 was put */

static bool has_name(const char *entry)
{
	char path[300], name[64] = "";
	snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry);
	FILE *file = fopen(path, "re");
	if (!file)
		return false;
	bool found = fgets(name, sizeof name, file) && strcmp(name, PORT_NAME "\n") == 0;
	fclose(file);
	return found;
}

void channel_open(void)
{
	char path[300];
	DIR *folder = port < 0 ? opendir("/sys/class/virtio-ports") : NULL;
	for (struct dirent *entry; folder && port < 0 && (entry = readdir(folder));) {
		if (entry->d_name[0] == '.' || !has_name(entry->d_name))
			continue;
		snprintf(path, sizeof path, "/dev/%s", entry->d_name);
		port = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	}
	if (folder)
		closedir(folder);
	if (port < 0)
		return;
	/* The driver signals when the host opens or closes its end: nothing has to be asked for again and again. */
	fcntl(port, F_SETOWN, getpid());
	fcntl(port, F_SETFL, O_NONBLOCK | O_ASYNC);
}

int channel_descriptor(void)
{
	return port;
}

bool channel_connected(void)
{
	struct pollfd poll_port = {.fd = port, .events = POLLOUT};
	return port >= 0 && poll(&poll_port, 1, 0) >= 0 && !(poll_port.revents & POLLHUP);
}

static void drop(size_t bytes)
{
	memmove(buffer, buffer + bytes, filled - bytes);
	filled -= bytes;
}

/* Throws away what cannot be the beginning of a frame: the rest of one that another boot did not take to its end. */
static void synchronise(void)
{
	size_t skip = 0;
	while (skip < filled && memcmp(buffer + skip, MAGIC, filled - skip < 4 ? filled - skip : 4) != 0)
		skip++;
	if (skip)
		drop(skip);
}

static uint32_t number(const unsigned char *at)
{
	return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static bool whole(struct frame *frame)
{
	for (;;) {
		synchronise();
		if (filled < FRAME_HEAD)
			return false;
		frame->type = number(buffer + 4);
		frame->id = number(buffer + 8);
		frame->size = number(buffer + 12);
		if (frame->size <= FRAME_MOST)
			break;
		drop(1); /* no frame of ours */
	}
	if (filled < FRAME_HEAD + frame->size)
		return false;
	frame->data = buffer + FRAME_HEAD;
	given = FRAME_HEAD + frame->size;
	saved = buffer[given];
	buffer[given] = 0;
	return true;
}

bool channel_read(struct frame *frame)
{
	if (port < 0)
		return false;
	if (given) {
		buffer[given] = saved;
		drop(given);
		given = 0;
	}
	for (;;) {
		if (whole(frame))
			return true;
		ssize_t got = read(port, buffer + filled, FRAME_HEAD + FRAME_MOST - filled);
		if (got > 0) {
			filled += (size_t)got;
			continue;
		}
		if (got < 0 && errno == EINTR)
			continue;
		if (got == 0) /* the host's end is closed: what it began it will not end */
			filled = 0;
		return false;
	}
}

void channel_send(uint32_t type, uint32_t id, const void *data, size_t size)
{
	static unsigned char out[FRAME_HEAD + FRAME_MOST];
	uint32_t words[3] = {type, id, (uint32_t)size};
	if (port < 0 || size > FRAME_MOST)
		return;
	memcpy(out, MAGIC, 4);
	for (int i = 0; i < 3; i++)
		for (int byte = 0; byte < 4; byte++)
			out[4 + 4 * i + byte] = (unsigned char)(words[i] >> 8 * byte);
	if (size)
		memcpy(out + FRAME_HEAD, data, size);
	for (size_t done = 0; done < FRAME_HEAD + size;) {
		ssize_t wrote = write(port, out + done, FRAME_HEAD + size - done);
		if (wrote > 0) {
			done += (size_t)wrote;
			continue;
		}
		if (wrote < 0 && errno == EINTR)
			continue;
		/* Waits for a host that is slow; a host that is gone gets nothing. */
		struct pollfd wait = {.fd = port, .events = POLLOUT};
		if (wrote < 0 && errno != EAGAIN)
			return;
		if (poll(&wait, 1, 1000) < 0 && errno != EINTR)
			return;
		if (wait.revents & POLLHUP)
			return;
	}
}
