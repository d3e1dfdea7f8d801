/* SPDX-License-Identifier: Apache-2.0 */
/* The integration components: they turn a generalized guest into one instance, and back into it at later boots. */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define UNIT "vmrole-components.service"

enum { SSH_PORT = 22, PATIENCE_MS = 120000, STEP_MS = 10 };

const char *instance_data = MEDIUM;

/* vmrole-ssh.path starts ssh.service when this file is there: no client program, no bus. Where cloud-init brought us the
 * server is the distribution's, which has one of two names for it. */
static void start_ssh(void)
{
	char *argv[] = {"/usr/bin/systemctl", "-q", "--no-block", "start", "ssh.service", "sshd.service", NULL};
	if (exists("/etc/systemd/system/" UNIT))
		run(argv, NULL, 0);
	else
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
static void announce_ready(const struct answer *answer)
{
	char *boot = read_file("/proc/sys/kernel/random/boot_id", 64, NULL);
	if (!boot)
		fail_errno("the boot id cannot be read");
	boot[strcspn(boot, "\n")] = 0;
	write_text(READY, 0644, "%s %s %s\n", answer->instance, COMPONENTS_VERSION, boot);
	if (!has_partner())
		stage("ready %s %s", answer->instance, boot);
	free(boot);
}

static void take_payload(const struct answer *answer)
{
	char from[PATH_MAX];
	if (!answer->payload)
		return;
	snprintf(from, sizeof from, "%s/payload", instance_data);
	if (!exists(from)) {
		make_folder(answer->payload, 0700);
		return;
	}
	if (strcmp(instance_data, MEDIUM) == 0) {
		make_folder(answer->payload, 0700);
		copy_tree(from, answer->payload);
	} else if (chmod(from, 0700) < 0 || rename(from, answer->payload) < 0) {
		fail_errno("the payload cannot be put to %s", answer->payload);
	}
}

static void specialize(struct answer *answer, bool stood_still)
{
	char path[PATH_MAX];
	stage("specializing");
	snprintf(path, sizeof path, "%s/answer.conf", instance_data);
	read_answer(path, answer);
	make_folder(STATE, 0700);
	make_folder(CERTIFICATES, 0700); /* authors look for it, certificates or not */
	set_entropy(answer);
	set_clock(answer, stood_still);
	/* What takes longest, beside the rest, of which what the ssh server needs comes first. */
	bool alone = !has_partner();
	pid_t certificates = alone && answer->certificate_count ? in_parallel(install_certificates, answer) : 0;
	pid_t resources = answer->resource_count ? in_parallel(make_resources, answer) : 0;
	if (alone)
		set_host_key();
	set_administrator(answer);
	set_identity(answer);
	set_settings(answer);
	if (answer->nic_count) /* else somebody else has set it up */
		set_network(answer);
	if (answer->await_ssh)
		start_ssh();
	if (alone)
		take_payload(answer);
	if (certificates)
		await(certificates);
	if (resources)
		await(resources);
	write_text(STATE_VERSION, 0600, "%s\n", COMPONENTS_VERSION);
	if (!alone) { /* it says that the guest is ready, and whoever hears that may restart it */
		write_state(answer);
		ask_partner("specialize", instance_data);
	}
}

/* From `write_state` on a boot restores instead of waiting for instance data. */
static void conclude(const struct answer *answer)
{
	write_state(answer);
	if (answer->await_ssh)
		await_ssh();
	announce_ready(answer);
	sync(); /* nobody waits for it: who takes the power away within these milliseconds gets a generalized guest */
	if (!answer->await_ssh && !port_listens(SSH_PORT)) /* it does in a fork */
		start_ssh();                               /* somebody may want it, but nobody waits for it */
}

void components_specialize(void)
{
	static struct answer answer;
	specialize(&answer, false);
	medium_unmount();
	conclude(&answer);
	notify_ready();
	serve(&answer);
}

void specialize_received(void)
{
	static struct answer answer;
	instance_data = INSTANCE;
	specialize(&answer, true);
	remove_tree(INSTANCE);
	conclude(&answer);
}

void components_restore(void)
{
	static struct answer answer;
	read_answer(STATE_INSTANCE, &answer);
	if (answer.nic_count)
		set_network(&answer);
	start_ssh();
	mount_resources(&answer);
	if (answer.await_ssh)
		await_ssh();
	if (has_partner())
		ask_partner("restore", "-");
	announce_ready(&answer);
	notify_ready();
	serve(&answer);
}

/* An ssh server that runs already takes the new key. Where it is not called so it reads the key with each connection. */
static void reload_ssh(void)
{
	char *text = read_file("/run/sshd.pid", 32, NULL);
	long pid = text ? strtol(text, NULL, 10) : 0;
	free(text);
	if (pid > 1)
		kill((pid_t)pid, SIGHUP);
}

/* From the next boot on it is our agent that brings the machine up: what cloud-init needs goes away with the medium, and
 * without that it would make another machine of this one. */
static void become_agent(void)
{
	char program[PATH_MAX];
	snprintf(program, sizeof program, COMPONENTS "/%s/" COMPONENTS_PROGRAM, COMPONENTS_VERSION);
	link_symbolic(program, AGENT);
	make_folder("/etc/systemd/system/multi-user.target.wants", 0755);
	write_text("/etc/systemd/system/" UNIT, 0644,
		   "[Unit]\nDescription=VM Role integration components\nAfter=local-fs.target\n\n"
		   "[Service]\nType=notify\nExecStart=" AGENT "\nTimeoutStartSec=infinity\nOOMPolicy=continue\n"
		   "OOMScoreAdjust=-900\nTasksMax=infinity\nStandardOutput=null\nStandardError=null\n\n"
		   "[Install]\nWantedBy=multi-user.target\n");
	link_symbolic("/etc/systemd/system/" UNIT, "/etc/systemd/system/multi-user.target.wants/" UNIT);
	make_folder("/etc/cloud", 0755);
	write_text("/etc/cloud/cloud-init.disabled", 0644, "%s", "");
}

void components_install(void)
{
	static struct answer answer;
	make_folder(RUNTIME, 0700);
	specialize(&answer, false);
	become_agent();
	medium_unmount();
	reload_ssh();
	conclude(&answer);
}

void components_generalize(void)
{
	become_agent();
	medium_unmount();
}
