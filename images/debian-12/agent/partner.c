/* SPDX-License-Identifier: Apache-2.0 */
/* A resident program of the image's own that does what this agent cannot: an image that has one says so by a file, and
 * the program listens on a socket. One line each way: what to do and the folder of the instance data; "ok" or what is
 * wrong, in one sentence. It is used once the guest is a machine of its own, and announces by itself that it is ready. */
#include "agent.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MARK "/usr/lib/vmrole/partner"
#define PARTNER RUNTIME "/partner"
enum { PATIENCE_MS = 180000, STEP_MS = 10 };

bool has_partner(void)
{
	return exists(MARK);
}

static int connect_partner(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = PARTNER};
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		fail_errno("a socket cannot be made");
	for (int waited = 0; connect(sock, (struct sockaddr *)&address, sizeof address) < 0; waited += STEP_MS) {
		if (waited >= PATIENCE_MS)
			fail_errno("the image's own program cannot be reached");
		usleep(STEP_MS * 1000); /* it is still starting */
	}
	return sock;
}

void ask_partner(const char *what, const char *folder)
{
	char answer[512] = "";
	size_t heard = 0;
	int sock = connect_partner();
	if (dprintf(sock, "%s %s\n", what, folder) < 0)
		fail_errno("the image's own program does not listen");
	while (heard < sizeof answer - 1) {
		ssize_t got = read(sock, answer + heard, sizeof answer - 1 - heard);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		heard += (size_t)got;
	}
	close(sock);
	answer[strcspn(answer, "\n")] = 0;
	if (strcmp(answer, "ok") != 0)
		fail("%s", *answer ? answer : "the image's own program ended");
}
