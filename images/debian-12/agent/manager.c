/* SPDX-License-Identifier: Apache-2.0 */
/* What the service manager says of the guest: one call of D-Bus over the socket that it has for root alone. */
#include "agent.h"

#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { CALL_MOST = 512, PATIENCE_SECONDS = 5, METHOD_CALL = 1, SIGNAL = 4 };

/* The user 0, as hexadecimal digits. Sent whole: what came with BEGIN alone would not be read before more came. */
static const char greeting[] = "\0AUTH EXTERNAL 30\r\nBEGIN\r\n";

struct call {
	unsigned char data[CALL_MOST];
	size_t size;
};

static void align(struct call *call, size_t to)
{
	while (call->size % to)
		call->data[call->size++] = 0;
}

static void put_number(struct call *call, uint32_t number)
{
	align(call, sizeof number);
	memcpy(call->data + call->size, &number, sizeof number);
	call->size += sizeof number;
}

static void put_text(struct call *call, const char *text)
{
	size_t length = strlen(text) + 1;
	put_number(call, (uint32_t)length - 1);
	memcpy(call->data + call->size, text, length);
	call->size += length;
}

/* One field of a header: its number, its type, its value. */
static void put_field(struct call *call, unsigned char code, char type, const char *value)
{
	align(call, 8);
	unsigned char head[] = {code, 1, (unsigned char)type, 0};
	memcpy(call->data + call->size, head, sizeof head);
	call->size += sizeof head;
	if (type != 'g') {
		put_text(call, value);
		return;
	}
	size_t length = strlen(value) + 1;
	call->data[call->size++] = (unsigned char)(length - 1);
	memcpy(call->data + call->size, value, length);
	call->size += length;
}

/* org.freedesktop.DBus.Properties.Get("org.freedesktop.systemd1.Manager", "SystemState") */
static void put_call(struct call *call)
{
	static const unsigned char head[] = {__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 'l' : 'B', METHOD_CALL, 0, 1};
	struct call body = {.size = 0};
	put_text(&body, "org.freedesktop.systemd1.Manager");
	put_text(&body, "SystemState");
	memcpy(call->data, head, sizeof head);
	call->size = sizeof head;
	put_number(call, (uint32_t)body.size);
	put_number(call, 1);
	put_number(call, 0); /* how long the fields are, known below */
	size_t fields = call->size;
	put_field(call, 1, 'o', "/org/freedesktop/systemd1");
	put_field(call, 2, 's', "org.freedesktop.DBus.Properties");
	put_field(call, 3, 's', "Get");
	put_field(call, 6, 's', "org.freedesktop.systemd1");
	put_field(call, 8, 'g', "ss");
	uint32_t length = (uint32_t)(call->size - fields);
	memcpy(call->data + fields - sizeof length, &length, sizeof length);
	align(call, 8);
	memcpy(call->data + call->size, body.data, body.size);
	call->size += body.size;
}

static bool send_all(int to, const void *data, size_t size)
{
	return send(to, data, size, MSG_NOSIGNAL) == (ssize_t)size;
}

/* Whether `wanted` is at the beginning of what comes next, a line. */
static bool hears_line(int from, const char *wanted)
{
	char line[CALL_MOST];
	size_t size = 0;
	do
		if (size == sizeof line || recv(from, line + size, 1, 0) != 1)
			return false;
	while (line[size++] != '\n');
	return size > strlen(wanted) && memcmp(line, wanted, strlen(wanted)) == 0;
}

/* Reads `size` bytes, and keeps the first of them, as many as `kept` takes. */
static bool read_bytes(int from, size_t size, unsigned char *kept, size_t most)
{
	unsigned char rest[CALL_MOST];
	while (size) {
		unsigned char *to = most ? kept : rest;
		size_t part = most ? most : sizeof rest;
		ssize_t got = recv(from, to, size < part ? size : part, 0);
		if (got <= 0)
			return false;
		size -= (size_t)got;
		if (most) {
			kept += got;
			most -= (size_t)got;
		}
	}
	return true;
}

/* Whether the answer has `wanted` in it, with its end. Signals come before it, many of them when the guest stops. */
static bool answers(int from, const char *wanted)
{
	for (;;) {
		unsigned char head[16], text[CALL_MOST];
		uint32_t body, fields;
		if (!read_bytes(from, sizeof head, head, sizeof head))
			return false;
		memcpy(&body, head + 4, sizeof body);
		memcpy(&fields, head + 12, sizeof fields);
		size_t rest = ((size_t)fields + 7) / 8 * 8 + body;
		memset(text, 0, sizeof text);
		if (!read_bytes(from, rest, text, sizeof text))
			return false;
		if (head[1] != SIGNAL)
			return memmem(text, sizeof text, wanted, strlen(wanted) + 1) != NULL;
	}
}

bool guest_stops(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/run/systemd/private"};
	struct timeval patience = {.tv_sec = PATIENCE_SECONDS};
	struct call call = {.size = 0};
	put_call(&call);
	int manager = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool stops = manager >= 0 && setsockopt(manager, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0 &&
		     connect(manager, (struct sockaddr *)&address, sizeof address) == 0 &&
		     send_all(manager, greeting, sizeof greeting - 1) && hears_line(manager, "OK ") &&
		     send_all(manager, call.data, call.size) && answers(manager, "stopping");
	if (manager >= 0)
		close(manager);
	return stops;
}
