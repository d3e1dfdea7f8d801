/* SPDX-License-Identifier: Apache-2.0 */
/* The frames of the channel (docs/guest-channel.md) between this agent and the harness. */
#ifndef VMROLE_CHANNEL_H
#define VMROLE_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum frame_type {
	/* from the host */
	FRAME_HELLO = 1,
	FRAME_FILE = 2,
	FRAME_DATA = 3,
	FRAME_SPECIALIZE = 4,
	FRAME_EXEC = 5,
	FRAME_STDIN = 6,
	FRAME_KILL = 7,
	FRAME_WORDS = 8,
	/* from the guest */
	FRAME_STATE = 65,
	FRAME_STDOUT = 66,
	FRAME_STDERR = 67,
	FRAME_EXIT = 68,
	FRAME_TAKEN = 69,
};

/* The driver takes 32 KiB at a time: a frame of at most that is written whole or not at all. */
enum { FRAME_HEAD = 16, FRAME_MOST = 32 * 1024 - FRAME_HEAD };

struct frame {
	uint32_t type, id;
	size_t size;
	unsigned char *data; /* followed by a 0 byte */
};

/* channel.c */
void channel_open(void);
int channel_descriptor(void);           /* -1: this machine has none */
bool channel_connected(void);           /* whether the host has its end open */
bool channel_read(struct frame *frame); /* the next whole frame, without waiting; valid until the next call */
void channel_send(uint32_t type, uint32_t id, const void *data, size_t size);

/* jobs.c: commands of the host */
enum { MOST_JOBS = 32 };
struct pollfd;
long long now_ms(void); /* of the monotonic clock */
void job_start(uint32_t id, char *description, size_t size);
void job_refuse(uint32_t id, int why); /* tells that it was not started, and the error number */
bool jobs_run(void);                   /* whether there is one whose end was not told */
void job_stdin(uint32_t id, const unsigned char *data, size_t size);
void job_kill(uint32_t id);
int jobs_poll(struct pollfd *polls, int most, int *timeout_ms);
void jobs_step(void);

#endif
