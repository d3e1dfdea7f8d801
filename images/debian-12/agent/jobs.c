/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that the host asks for: started as they are, in a session of their own, their streams sent as they come. */
#include "channel.h"
#include "agent.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What a command left running may hold its output open: so long it is listened to after the command's end. */
enum { DRAIN_QUIET_MS = 250, DRAIN_MOST_MS = 1000 };
/* What the host may send before it hears that the command took it. */
enum { WINDOW = 64 * 1024 };
enum { MOST_WORDS = 8192 };

struct job {
	bool used, ended, killed;
	uint32_t id;
	pid_t pid;
	int in, out, err; /* -1: closed */
	/* Bytes in its pipes when it ended, until they are read: its own, which no time limit cuts off. */
	int owed_out, owed_err;
	int status;
	long long limit, ended_at, heard_at; /* milliseconds of the monotonic clock; limit 0: none */
	unsigned char *waiting;              /* standard input that the command has not taken yet */
	size_t waiting_size;
	bool no_more_input;
};

static struct job jobs[MOST_JOBS];

long long now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static struct job *find(uint32_t id)
{
	for (int i = 0; i < MOST_JOBS; i++)
		if (jobs[i].used && jobs[i].id == id)
			return &jobs[i];
	return NULL;
}

static void close_end(int *end)
{
	if (*end >= 0)
		close(*end);
	*end = -1;
}

/* code, number of the signal or 0, errno of a program that could not be started or 0, 1 if its time was over */
static void send_exit(uint32_t id, int code, int signal_number, int why, bool late)
{
	char text[80];
	int size = snprintf(text, sizeof text, "%d %d %d %d", code, signal_number, why, late);
	channel_send(FRAME_EXIT, id, text, (size_t)size);
}

void job_refuse(uint32_t id, int why)
{
	send_exit(id, 126, 0, why, false);
}

bool jobs_run(void)
{
	for (int i = 0; i < MOST_JOBS; i++)
		if (jobs[i].used)
			return true;
	return false;
}

/* The words of a description, each ended by a 0: limit in milliseconds, working folder, number of arguments, arguments,
 * environment. Returns their number, 0 for too many. */
static int split(char *text, size_t size, char **words)
{
	int count = 0;
	char *end = text + size;
	for (; text < end && count < MOST_WORDS; text += strlen(text) + 1)
		words[count++] = text;
	words[count] = NULL;
	return text < end ? 0 : count;
}

static _Noreturn void become(const char *folder, char **argv, char **environment, int report)
{
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL); /* a service is started with it ignored */
	int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (score >= 0 && write(score, "0", 1) == 1)
		close(score);
	setsid();
	umask(022);
	int why = 0;
	if (*folder && chdir(folder) < 0) {
		why = -errno;
	} else {
		/* The program is looked for with the command's own PATH. */
		clearenv();
		environ = environment;
		execvpe(argv[0], argv, environment);
		why = errno;
	}
	if (write(report, &why, sizeof why) != sizeof why)
		_exit(126);
	_exit(127);
}

static bool make_pipe(int ends[2])
{
	return pipe2(ends, O_CLOEXEC) == 0;
}

/* Reads the reason why the program could not be started: 0 when it was. */
static int started(int report)
{
	int why = 0;
	ssize_t got;
	do
		got = read(report, &why, sizeof why);
	while (got < 0 && errno == EINTR);
	return got == sizeof why ? why : 0;
}

void job_start(uint32_t id, char *description, size_t size)
{
	static char *words[MOST_WORDS + 1];
	int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1}, report[2] = {-1, -1};
	struct job *job = NULL;
	for (int i = 0; i < MOST_JOBS && !job; i++)
		if (!jobs[i].used)
			job = &jobs[i];
	int count = split(description, size, words);
	int arguments = count >= 4 ? atoi(words[2]) : 0;
	if (!job || arguments < 1 || arguments > count - 3 || !make_pipe(in) || !make_pipe(out) || !make_pipe(err) ||
	    !make_pipe(report)) {
		send_exit(id, 126, 0, !job ? EAGAIN : arguments < 1 ? E2BIG : EMFILE, false);
		for (int i = 0; i < 2; i++) {
			close_end(&in[i]);
			close_end(&out[i]);
			close_end(&err[i]);
			close_end(&report[i]);
		}
		return;
	}
	/* The arguments end where the environment begins; a list needs its end. */
	static char *argv[MOST_WORDS + 1];
	memcpy(argv, words + 3, sizeof *argv * (size_t)arguments);
	argv[arguments] = NULL;
	long long limit = atoll(words[0]);
	pid_t pid = fork();
	if (pid == 0) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		dup2(err[1], 2);
		become(words[1], argv, words + 3 + arguments, report[1]);
	}
	close(in[0]);
	close(out[1]);
	close(err[1]);
	close(report[1]);
	int why = pid < 0 ? errno : started(report[0]);
	close(report[0]);
	if (why) {
		if (pid > 0)
			waitpid(pid, NULL, 0);
		close(in[1]);
		close(out[0]);
		close(err[0]);
		send_exit(id, why == ENOENT || why < 0 ? 127 : 126, 0, why, false);
		return;
	}
	fcntl(in[1], F_SETFL, O_NONBLOCK);
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	fcntl(err[0], F_SETFL, O_NONBLOCK);
	*job = (struct job){.used = true,
			    .id = id,
			    .pid = pid,
			    .in = in[1],
			    .out = out[0],
			    .err = err[0],
			    .limit = limit > 0 ? now_ms() + limit : 0};
}

/* Hands over what waits, as far as the command takes it. */
static void feed(struct job *job)
{
	size_t done = 0;
	while (job->in >= 0 && done < job->waiting_size) {
		ssize_t wrote = write(job->in, job->waiting + done, job->waiting_size - done);
		if (wrote > 0) {
			done += (size_t)wrote;
		} else if (errno == EAGAIN) {
			break;
		} else if (errno != EINTR) {
			close_end(&job->in); /* it does not want more */
		}
	}
	if (job->in < 0)
		done = job->waiting_size;
	if (done) {
		char text[24];
		int size = snprintf(text, sizeof text, "%zu", done);
		channel_send(FRAME_TAKEN, job->id, text, (size_t)size);
		memmove(job->waiting, job->waiting + done, job->waiting_size - done);
		job->waiting_size -= done;
	}
	if (job->waiting_size == 0 && job->no_more_input)
		close_end(&job->in);
}

void job_stdin(uint32_t id, const unsigned char *data, size_t size)
{
	struct job *job = find(id);
	if (!job)
		return;
	if (size == 0) {
		job->no_more_input = true;
	} else if (job->waiting_size + size <= WINDOW) {
		if (!job->waiting)
			job->waiting = malloc(WINDOW);
		if (!job->waiting)
			fail("the guest is out of memory");
		memcpy(job->waiting + job->waiting_size, data, size);
		job->waiting_size += size;
	}
	feed(job);
}

/* Kills a session: also what has left the process group of its command. */
static void kill_session(pid_t session)
{
	char path[300], text[512];
	kill(-session, SIGKILL);
	DIR *folder = opendir("/proc");
	for (struct dirent *entry; folder && (entry = readdir(folder));) {
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
		FILE *file = fopen(path, "re");
		size_t got = file ? fread(text, 1, sizeof text - 1, file) : 0;
		if (file)
			fclose(file);
		text[got] = 0;
		/* The name in the second field may hold anything; behind its last bracket come state, parent, group, session. */
		char *behind = strrchr(text, ')');
		int its = 0;
		if (behind && sscanf(behind + 1, " %*c %*d %*d %d", &its) == 1 && its == session)
			kill(atoi(entry->d_name), SIGKILL);
	}
	if (folder)
		closedir(folder);
}

void job_kill(uint32_t id)
{
	struct job *job = find(id);
	if (job)
		kill_session(job->pid);
}

static int add(struct pollfd *polls, int count, int most, int descriptor, short events)
{
	if (descriptor >= 0 && count < most)
		polls[count++] = (struct pollfd){.fd = descriptor, .events = events};
	return count;
}

static void sooner(int *timeout_ms, long long when)
{
	long long left = when - now_ms();
	int wait = left < 0 ? 0 : left > 1 << 30 ? 1 << 30 : (int)left + 1;
	if (*timeout_ms < 0 || wait < *timeout_ms)
		*timeout_ms = wait;
}

static long long drained_at(const struct job *job)
{
	long long quiet = (job->heard_at > job->ended_at ? job->heard_at : job->ended_at) + DRAIN_QUIET_MS;
	long long most = job->ended_at + DRAIN_MOST_MS;
	return quiet < most ? quiet : most;
}

int jobs_poll(struct pollfd *polls, int most, int *timeout_ms)
{
	int count = 0;
	for (int i = 0; i < MOST_JOBS; i++) {
		struct job *job = &jobs[i];
		if (!job->used)
			continue;
		count = add(polls, count, most, job->out, POLLIN);
		count = add(polls, count, most, job->err, POLLIN);
		if (job->waiting_size)
			count = add(polls, count, most, job->in, POLLOUT);
		if (job->limit && !job->ended && !job->killed)
			sooner(timeout_ms, job->limit);
		if (job->ended)
			sooner(timeout_ms, drained_at(job));
	}
	return count;
}

static int waiting_in(int end)
{
	int size = 0;
	return end >= 0 && ioctl(end, FIONREAD, &size) == 0 ? size : 0;
}

/* Sends what there is of one stream, at most a few frames, so that no command keeps the others waiting. */
static void listen_to(struct job *job, int *end, int *owed, uint32_t type)
{
	static unsigned char data[FRAME_MOST];
	for (int turn = 0; *end >= 0 && turn < 4; turn++) {
		ssize_t got = read(*end, data, sizeof data);
		if (got > 0) {
			channel_send(type, job->id, data, (size_t)got);
			job->heard_at = now_ms();
			*owed -= got < *owed ? (int)got : *owed;
		} else if (got == 0) {
			close_end(end);
		} else if (errno != EINTR) {
			*owed = 0;
			return;
		}
	}
}

static void finish(struct job *job)
{
	close_end(&job->in);
	close_end(&job->out);
	close_end(&job->err);
	free(job->waiting);
	int by_signal = WIFSIGNALED(job->status) ? WTERMSIG(job->status) : 0;
	int code = by_signal ? 128 + by_signal : WEXITSTATUS(job->status);
	send_exit(job->id, code, by_signal, 0, job->killed);
	*job = (struct job){0};
}

void jobs_step(void)
{
	for (int i = 0; i < MOST_JOBS; i++) {
		struct job *job = &jobs[i];
		if (!job->used)
			continue;
		if (job->waiting_size)
			feed(job);
		if (!job->ended && waitpid(job->pid, &job->status, WNOHANG) == job->pid) {
			job->ended = true;
			job->ended_at = now_ms();
			job->owed_out = waiting_in(job->out);
			job->owed_err = waiting_in(job->err);
		}
		listen_to(job, &job->out, &job->owed_out, FRAME_STDOUT);
		listen_to(job, &job->err, &job->owed_err, FRAME_STDERR);
		if (!job->ended && !job->killed && job->limit && now_ms() >= job->limit) {
			job->killed = true;
			kill_session(job->pid);
		}
		bool silent = job->out < 0 && job->err < 0;
		bool owes = job->owed_out > 0 || job->owed_err > 0;
		if (job->ended && (silent || (!owes && now_ms() >= drained_at(job))))
			finish(job);
	}
}
