// SPDX-License-Identifier: Apache-2.0
// Tells when all that a program wrote into its pipe has been read, though what it left running may hold the pipe open:
// a mark of random bytes is written behind it and taken out again. No time would do, of a processor that many share.
#ifndef VMROLE_MARK_H
#define VMROLE_MARK_H

#include <windows.h>
#include <ntsecapi.h>
#include <stdlib.h>
#include <string.h>

enum { MARK_SIZE = 16, MARK_PIECE = 32768, GATHER_BELOW = 1024, GATHER_MS = 20 };

struct mark {
	HANDLE to;     // the pipe's end for writing, which the program has, too
	HANDLE passed; // set when everything in front of the mark was given
	HANDLE ended;  // set when the program has ended
	volatile LONG written;
	char bytes[MARK_SIZE];
};

// Whether what is given is still wanted.
typedef BOOL give_output(void *to, const char *data, DWORD size);

static BOOL make_mark(struct mark *mark, HANDLE to)
{
	mark->to = to;
	mark->passed = CreateEventW(NULL, TRUE, FALSE, NULL);
	mark->ended = CreateEventW(NULL, TRUE, FALSE, NULL);
	return mark->passed && mark->ended && RtlGenRandom(mark->bytes, MARK_SIZE);
}

// To be called once, when the program has ended. Blocks as long as the pipe is full.
static void write_mark(struct mark *mark)
{
	DWORD mode = PIPE_WAIT, size = 0, done;
	InterlockedExchange(&mark->written, 1);
	SetEvent(mark->ended);
	// Programs set their end, which is this one, not to wait for room.
	SetNamedPipeHandleState(mark->to, &mode, NULL, NULL);
	for (; size < MARK_SIZE && WriteFile(mark->to, mark->bytes + size, MARK_SIZE - size, &done, NULL); size += done)
		if (!done)
			Sleep(10);
	if (size < MARK_SIZE)
		SetEvent(mark->passed); // nobody reads any more
	CloseHandle(mark->to);
	mark->to = NULL;
}

// Where the mark is, or the beginning of it at the end of the data; their size for nowhere.
static DWORD find_mark(const struct mark *mark, const char *data, DWORD size)
{
	const char *end = data + size;
	for (const char *at = data; (at = memchr(at, *mark->bytes, (size_t)(end - at))); at++)
		if (!memcmp(at, mark->bytes, end - at < MARK_SIZE ? (size_t)(end - at) : MARK_SIZE))
			return (DWORD)(at - data);
	return size;
}

// Gives all that comes, but for the mark, until the pipe ends. What is not wanted any more is read for the mark's sake.
static void read_marked(struct mark *mark, HANDLE from, give_output *give, void *to)
{
	char *data = malloc(MARK_PIECE + MARK_SIZE);
	DWORD held = 0, got;
	BOOL passed = FALSE, wanted = TRUE;
	// Nothing was read of a program that wrote nothing: only an error is the end.
	while (data && (wanted || !passed) && ReadFile(from, data + held, MARK_PIECE, &got, NULL)) {
		// While the program runs there is no mark, and nothing is held back that looks like its beginning.
		DWORD size = held + got, at = passed || !mark->written ? size : find_mark(mark, data, size);
		wanted = wanted && (!at || give(to, data, at));
		held = size - at;
		if (held >= MARK_SIZE) {
			passed = SetEvent(mark->passed);
			held -= MARK_SIZE;
			wanted = wanted && (!held || give(to, data + at + MARK_SIZE, held));
			held = 0;
		}
		memmove(data, data + at, held);
		// Many programs write line by line, and to hand each on costs more than the line.
		if (got < GATHER_BELOW)
			WaitForSingleObject(mark->ended, GATHER_MS);
	}
	if (wanted && held)
		give(to, data, held);
	SetEvent(mark->passed);
	free(data);
}

#endif
