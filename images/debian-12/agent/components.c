/* SPDX-License-Identifier: Apache-2.0 */
/* The integration components: they turn a generalized guest into one instance, and back into it at later boots. */
#include "agent.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SSH_PORT = 22, PATIENCE_MS = 120000, STEP_MS = 10 };

/* vmrole-ssh.path starts ssh.service when this file is there: no client program, no bus. */
static void start_ssh(void)
{
	write_text(START_SSH, 0600, "%s", "");
}

static void await_ssh(void)
{
	for (int waited = 0; !port_listens(SSH_PORT); waited += STEP_MS) {
		if (waited >= PATIENCE_MS)
			fail("the guest's ssh server did not start");
		usleep(STEP_MS * 1000);
	}
}

/* The last thing that is written: whoever sees it finds everything done. */
static _Noreturn void announce_ready(const struct answer *answer)
{
	char *boot = read_file("/proc/sys/kernel/random/boot_id", 64, NULL);
	if (!boot)
		fail_errno("the boot id cannot be read");
	boot[strcspn(boot, "\n")] = 0;
	write_text(READY, 0644, "%s %s %s\n", answer->instance, COMPONENTS_VERSION, boot);
	stage("ready %s %s", answer->instance, boot);
	notify_ready();
	/* Stays: the agent of a ready machine is where a channel to the host would be served. */
	for (;;)
		pause();
}

static void copy_payload(const struct answer *answer)
{
	if (!answer->payload)
		return;
	make_folder(answer->payload, 0700);
	if (exists(MEDIUM "/payload"))
		copy_tree(MEDIUM "/payload", answer->payload);
}

void components_specialize(void)
{
	static struct answer answer;
	stage("specializing");
	read_answer(MEDIUM "/answer.conf", &answer);
	make_folder(STATE, 0700);
	set_entropy(&answer);
	set_clock(&answer);
	/* First all that the ssh server needs; the rest is done while it starts. */
	set_host_key();
	set_administrator(&answer);
	set_identity(&answer);
	set_settings(&answer);
	set_network(&answer);
	start_ssh();
	pid_t certificates = in_parallel(install_certificates, &answer);
	pid_t resources = in_parallel(make_resources, &answer);
	copy_payload(&answer);
	await(certificates);
	await(resources);
	medium_unmount();
	write_text(STATE_VERSION, 0600, "%s\n", COMPONENTS_VERSION);
	write_state(&answer); /* from here on a boot restores instead of waiting for a medium */
	sync();
	await_ssh();
	announce_ready(&answer);
}

void components_restore(void)
{
	static struct answer answer;
	read_answer(STATE_INSTANCE, &answer);
	set_network(&answer);
	start_ssh();
	mount_resources(&answer);
	await_ssh();
	announce_ready(&answer);
}
