/* SPDX-License-Identifier: Apache-2.0 */
/* The resident agent's one loop: the host's frames, the commands they started, and the wait for instance data. */
#include "channel.h"
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MEDIUM_POLL_MS = 100, MOST_DESCRIPTION = 1 << 20, MOST_POLLS = 1 + 3 * MOST_JOBS };
/* How long commands may take to end when the guest stops: one that stops it has an end of its own to tell. */
enum { ENDING_MS = 5000 };

static const char *state; /* what FRAME_STATE says */
static const char *instance;
static pid_t specializing;
static int receiving = -1; /* the file that FRAME_DATA is appended to */
static char *description;  /* of the command that FRAME_EXEC will start */
static size_t described;
static bool stopping;                 /* the host was told that the guest or this agent ends */
static volatile sig_atomic_t stopped; /* the service manager stops this agent, as it does before the guest restarts */

static void on_signal(int number)
{
	if (number == SIGTERM)
		stopped = 1; /* the others only have to wake the loop */
}

/* Signals are taken in ppoll() alone: none is lost between looking and waiting. */
static void hold_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal};
	sigset_t held;
	sigemptyset(&held);
	sigaddset(&held, SIGCHLD);
	sigaddset(&held, SIGIO);
	sigaddset(&held, SIGTERM);
	sigprocmask(SIG_BLOCK, &held, NULL);
	sigaction(SIGCHLD, &action, NULL);
	sigaction(SIGIO, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

/* Answers FRAME_HELLO, or says unasked (nonce "-") that this boot is there or that it ends. */
static void tell_state(const char *nonce)
{
	char text[512], boot[64] = "";
	char *id = read_file("/proc/sys/kernel/random/boot_id", 64, NULL);
	snprintf(boot, sizeof boot, "%.36s", id ? id : "");
	free(id);
	int size = snprintf(text, sizeof text, "%.64s\n%s\n%s\n%s\n%s\n", nonce, state, instance ? instance : "-",
			    COMPONENTS_VERSION, boot);
	channel_send(FRAME_STATE, 0, text, (size_t)size);
}

/* From now on no command is started: it would be killed. */
static void stop_starting(void)
{
	stopping = true;
	state = "stopping";
}

static bool stays_below(const char *name)
{
	if (!*name || *name == '/')
		return false;
	for (const char *part = name; part; part = strchr(part, '/')) {
		part += *part == '/';
		size_t length = strcspn(part, "/");
		if (length == 0 || (length == 1 && part[0] == '.') || (length == 2 && strncmp(part, "..", 2) == 0))
			return false;
	}
	return true;
}

static void end_file(void)
{
	if (receiving >= 0 && close(receiving) < 0)
		fail_errno("instance data cannot be written");
	receiving = -1;
}

static void append(const unsigned char *data, size_t size)
{
	while (size) {
		ssize_t wrote = write(receiving, data, size);
		if (wrote < 0 && errno != EINTR)
			fail_errno("instance data cannot be written");
		if (wrote > 0) {
			data += wrote;
			size -= (size_t)wrote;
		}
	}
}

/* "<mode, octal> <name>" 0 <the first of the content>; a name that ends with / is a folder. */
static void begin_file(const struct frame *frame)
{
	char path[PATH_MAX];
	char *name, *text = (char *)frame->data;
	mode_t mode = (mode_t)strtoul(text, &name, 8) & 0777;
	size_t head = strlen(text) + 1;
	end_file();
	name += *name == ' ';
	size_t length = strlen(name);
	bool folder = length && name[length - 1] == '/';
	if (folder)
		name[length - 1] = 0;
	if (!stays_below(name) || head > frame->size || snprintf(path, sizeof path, INSTANCE "/%s", name) >= PATH_MAX)
		fail("the host sends a file with a name that cannot be one");
	make_folder(INSTANCE, 0700);
	char *slash = folder ? NULL : strrchr(path, '/');
	if (slash)
		*slash = 0;
	make_folder(path, 0755);
	if (chmod(INSTANCE, 0700) < 0)
		fail_errno("instance data cannot be kept");
	if (!slash)
		return;
	*slash = '/';
	receiving = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	if (receiving < 0 || fchmod(receiving, mode) < 0)
		fail_errno("instance data cannot be written to %s", path);
	append(frame->data + head, frame->size - head);
}

static void begin_specialization(void)
{
	end_file();
	if (specializing || instance)
		return;
	state = "specializing";
	/* In a process of its own: the loop goes on, and a failure there is told by the loop's death only. */
	specializing = fork();
	if (specializing < 0)
		fail_errno("a process cannot be started");
	if (specializing == 0) {
		sigset_t none;
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		specialize_received();
		_exit(0);
	}
}

static void look_after_specialization(void)
{
	int status;
	if (!specializing || waitpid(specializing, &status, WNOHANG) != specializing)
		return;
	specializing = 0;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		fail("the specialization ended by itself"); /* announced only if it said nothing */
	static struct answer answer;
	read_answer(STATE_INSTANCE, &answer);
	instance = answer.instance;
	state = "ready";
	notify_ready();
}

/* Long descriptions come in parts: FRAME_WORDS, then FRAME_EXEC. */
static void describe(const struct frame *frame)
{
	if (frame->size > MOST_DESCRIPTION - described)
		fail("the host sends a command that is too long");
	char *longer = realloc(description, described + frame->size + 1);
	if (!longer)
		fail("the guest is out of memory");
	description = longer;
	memcpy(description + described, frame->data, frame->size);
	described += frame->size;
	description[described] = 0;
}

static void handle(const struct frame *frame)
{
	switch (frame->type) {
	case FRAME_HELLO:
		/* The signal comes some time after a command has asked for a restart, and has ended. */
		if (instance && !stopping && guest_stops())
			stop_starting();
		tell_state((const char *)frame->data);
		break;
	case FRAME_FILE:
		if (!specializing && !instance)
			begin_file(frame);
		break;
	case FRAME_DATA:
		if (receiving >= 0)
			append(frame->data, frame->size);
		break;
	case FRAME_SPECIALIZE: begin_specialization(); break;
	case FRAME_WORDS: describe(frame); break;
	case FRAME_EXEC:
		describe(frame);
		if (stopping)
			job_refuse(frame->id, ESHUTDOWN);
		else
			job_start(frame->id, description, described);
		described = 0;
		break;
	case FRAME_STDIN: job_stdin(frame->id, frame->data, frame->size); break;
	case FRAME_KILL: job_kill(frame->id); break;
	default: break; /* a later host's */
	}
}

/* Ends when the commands have, or their time is over; how much of that is left. */
static int stop(void)
{
	static long long since;
	if (!since) {
		since = now_ms();
		stop_starting();
		tell_state("-");
	}
	long long left = since + ENDING_MS - now_ms();
	if (left <= 0 || !jobs_run())
		exit(0);
	return (int)left;
}

/* One turn: what has come is done, then there is a wait of at most `timeout_ms` (-1: for ever) for more. */
static void turn(int timeout_ms)
{
	struct pollfd polls[MOST_POLLS];
	struct frame frame;
	sigset_t none;
	sigemptyset(&none);
	if (channel_descriptor() < 0) {
		channel_open();
		if (channel_descriptor() >= 0)
			tell_state("-");
	}
	while (channel_read(&frame))
		handle(&frame);
	jobs_step();
	look_after_specialization();
	if (stopped)
		timeout_ms = stop();
	int count = 0;
	if (channel_connected())
		polls[count++] = (struct pollfd){.fd = channel_descriptor(), .events = POLLIN};
	count += jobs_poll(polls + count, MOST_POLLS - count, &timeout_ms);
	struct timespec limit = {.tv_sec = timeout_ms / 1000, .tv_nsec = timeout_ms % 1000 * 1000000L};
	ppoll(polls, (nfds_t)count, timeout_ms < 0 ? NULL : &limit, &none);
}

void serve_generalized(char *device, size_t size)
{
	bool told = false;
	state = "awaiting-instance";
	hold_signals();
	while (!medium_find(device, size)) {
		if (!told) {
			stage("awaiting-instance");
			notify_ready(); /* the rest of the boot does not wait for the host */
			told = true;
		}
		turn(MEDIUM_POLL_MS);
		while (specializing || instance)
			turn(-1);
	}
}

void serve(const struct answer *answer)
{
	state = "ready";
	instance = answer->instance;
	hold_signals();
	for (;;)
		turn(channel_descriptor() < 0 ? MEDIUM_POLL_MS : -1);
}
