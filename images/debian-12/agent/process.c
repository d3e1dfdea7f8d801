/* SPDX-License-Identifier: Apache-2.0 */
/* Child processes, and the line to the service manager. */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* The resident agent takes its signals at one place only; what it starts must not inherit that. */
static void unblock_signals(void)
{
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static int wait_for(pid_t pid)
{
	int status;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return 127;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int run(char *const argv[], char *output, size_t size)
{
	int pipes[2];
	if (pipe2(pipes, O_CLOEXEC) < 0)
		fail_errno("a pipe cannot be made");
	pid_t pid = fork();
	if (pid < 0)
		fail_errno("%s cannot be started", argv[0]);
	if (pid == 0) {
		unblock_signals();
		int null = open("/dev/null", O_RDWR);
		dup2(null, 0);
		dup2(output ? pipes[1] : null, 1);
		dup2(null, 2);
		execv(argv[0], argv);
		_exit(127);
	}
	close(pipes[1]);
	size_t done = 0;
	while (output && done < size - 1) {
		ssize_t got = read(pipes[0], output + done, size - 1 - done);
		if (got == 0 || (got < 0 && errno != EINTR))
			break;
		if (got > 0)
			done += (size_t)got;
	}
	if (output)
		output[done] = 0;
	close(pipes[0]);
	return wait_for(pid);
}

pid_t in_parallel(void (*task)(const struct answer *), const struct answer *answer)
{
	pid_t pid = fork();
	if (pid < 0)
		fail_errno("a process cannot be started");
	if (pid == 0) {
		task(answer);
		_exit(0);
	}
	return pid;
}

void await(pid_t pid)
{
	int code = wait_for(pid);
	if (code != 0) /* says nothing if the child has announced its own failure */
		fail("a part of the specialization ended with code %d", code);
}

void notify_ready(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (!path || strlen(path) >= sizeof address.sun_path)
		return;
	strcpy(address.sun_path, path);
	if (address.sun_path[0] == '@')
		address.sun_path[0] = 0;
	int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return;
	sendto(sock, "READY=1", 7, MSG_NOSIGNAL, (struct sockaddr *)&address,
	       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)));
	close(sock);
	unsetenv("NOTIFY_SOCKET");
}
