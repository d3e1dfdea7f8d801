/* SPDX-License-Identifier: Apache-2.0 */
/* root's password and keys, and the key by which the harness recognises this machine. */
#include "agent.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHADOW "/etc/shadow"
#define HOST_KEY "ssh_host_ed25519_key"

/* Replaces the second field of root's line; everything else stays as it is. */
static void set_password(const char *hash)
{
	size_t size;
	char *shadow = read_file(SHADOW, 1 << 20, &size);
	char *line = shadow;
	while (line && strncmp(line, "root:", 5) != 0) {
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	char *rest = line ? strchr(line + 5, ':') : NULL;
	if (!rest)
		fail("the guest has no account root");
	line[5] = 0;
	/* Not by write_text: it would leave the hash behind in freed memory. */
	size_t room = size + strlen(hash) + 1;
	char *text = malloc(room);
	if (!text)
		fail("the guest is out of memory");
	char *end = stpcpy(text, shadow); /* up to and with "root:" */
	end = stpcpy(end, hash);
	end = stpcpy(end, rest);
	struct stat before; /* its group may read it, and keeps that */
	if (stat(SHADOW, &before) < 0)
		fail_errno("%s cannot be read", SHADOW);
	write_file(SHADOW, 0600, text, (size_t)(end - text));
	if (chown(SHADOW, before.st_uid, before.st_gid) < 0 || chmod(SHADOW, before.st_mode & 07777) < 0)
		fail_errno("the rights of %s cannot be set", SHADOW);
	explicit_bzero(text, room);
	explicit_bzero(shadow, size);
	free(text);
	free(shadow);
}

static void set_keys(const struct answer *answer)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	if (!out)
		fail("the guest is out of memory");
	for (int i = 0; i < answer->key_count; i++)
		fprintf(out, "%s\n", answer->keys[i]);
	if (fclose(out) != 0)
		fail("the guest is out of memory");
	make_folder("/root/.ssh", 0700);
	write_file("/root/.ssh/authorized_keys", 0600, text, size);
	free(text);
}

void set_administrator(const struct answer *answer)
{
	if (answer->password_hash)
		set_password(answer->password_hash);
	if (answer->key_count)
		set_keys(answer);
}

void set_host_key(void)
{
	char from[PATH_MAX];
	snprintf(from, sizeof from, "%s/ssh/host_ed25519", instance_data);
	copy_file(from, "/etc/ssh/" HOST_KEY, 0600);
	snprintf(from, sizeof from, "%s/ssh/host_ed25519.pub", instance_data);
	copy_file(from, "/etc/ssh/" HOST_KEY ".pub", 0644);
}
