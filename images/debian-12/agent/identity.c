/* SPDX-License-Identifier: Apache-2.0 */
/* Entropy, clock, names and the fixed settings. */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

void set_entropy(const struct answer *answer)
{
	struct {
		int bits, size;
		unsigned char data[64];
	} seed = {.bits = 512, .size = 64};
	if (!answer->entropy)
		return;
	for (int i = 0; i < 64; i++)
		sscanf(answer->entropy + 2 * i, "%2hhx", &seed.data[i]);
	int random = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
	/* The pool first, then the generator: only the second ioctl makes forks of one template differ at once. */
	if (random < 0 || ioctl(random, RNDADDENTROPY, &seed) < 0 || ioctl(random, RNDRESEEDCRNG, NULL) < 0)
		fail_errno("the kernel's random generator cannot be seeded");
	close(random);
	explicit_bzero(&seed, sizeof seed);
}

void set_clock(const struct answer *answer, bool stood_still)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	double ahead = (double)now.tv_sec + (double)now.tv_nsec / 1e9 - answer->time;
	/* A clock that stood still in a template is wrong whatever it says, and the time is of this moment. Else:
	 * the medium was written in the past: a clock somewhat ahead of it is right (the boot lies between), one behind it
	 * belongs to a template that stood still. An hour ahead is a hardware clock that is wrong. */
	if (answer->time == 0 || (!stood_still && ahead >= -1 && ahead < 3600))
		return;
	now.tv_sec = (time_t)answer->time;
	now.tv_nsec = (long)((answer->time - (double)now.tv_sec) * 1e9);
	if (clock_settime(CLOCK_REALTIME, &now) < 0)
		fail_errno("the clock cannot be set");
}

/* Two lines: the entropy as in an answer document, and the seconds since 1970. */
void renew(void)
{
	static char entropy[160], seconds[64];
	struct answer answer = {.entropy = entropy};
	if (!fgets(entropy, sizeof entropy, stdin) || !fgets(seconds, sizeof seconds, stdin) ||
	    strspn(entropy, "0123456789abcdef") != 128)
		fail("what the guest is to renew itself with is not complete");
	answer.time = strtod(seconds, NULL);
	set_entropy(&answer);
	set_clock(&answer, true);
}

static void set_name(const char *name)
{
	if (sethostname(name, strlen(name)) < 0)
		fail_errno("the computer name cannot be set");
	write_text("/etc/hostname", 0644, "%s\n", name);
	write_text("/etc/hosts", 0644,
		   "127.0.0.1\tlocalhost\n127.0.1.1\t%s\n\n::1\tlocalhost ip6-localhost ip6-loopback\n"
		   "ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
		   name);
}

static void set_machine_id(const char *id)
{
	char old[64], link[128];
	char *text = read_file("/etc/machine-id", 63, NULL);
	snprintf(old, sizeof old, "%.32s", text ? text : "");
	free(text);
	write_text("/etc/machine-id", 0444, "%s\n", id);
	/* journald keeps writing under the id that it started with; journalctl looks under the present one. */
	snprintf(link, sizeof link, "/run/log/journal/%s", id);
	if (strlen(old) == 32 && strcmp(old, id) != 0 && exists("/run/log/journal"))
		link_symbolic(old, link);
}

void set_identity(const struct answer *answer)
{
	if (answer->computer_name)
		set_name(answer->computer_name);
	if (answer->machine_id)
		set_machine_id(answer->machine_id);
}

static void set_updates_off(void)
{
	static const char *const units[] = {"apt-daily.timer", "apt-daily.service", "apt-daily-upgrade.timer",
					    "apt-daily-upgrade.service"};
	char path[128];
	for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
		snprintf(path, sizeof path, "/etc/systemd/system/%s", units[i]);
		link_symbolic("/dev/null", path);
	}
	write_text("/etc/apt/apt.conf.d/99vmrole-no-automatic-updates", 0644,
		   "APT::Periodic::Enable \"0\";\nAPT::Periodic::Update-Package-Lists \"0\";\n"
		   "APT::Periodic::Download-Upgradeable-Packages \"0\";\nAPT::Periodic::Unattended-Upgrade \"0\";\n");
}

void set_settings(const struct answer *answer)
{
	char zone[128];
	if (answer->time_zone) {
		snprintf(zone, sizeof zone, "/usr/share/zoneinfo/%s", answer->time_zone);
		if (!exists(zone))
			fail("the guest does not know the time zone %s", answer->time_zone);
		link_symbolic(zone, "/etc/localtime");
		write_text("/etc/timezone", 0644, "%s\n", answer->time_zone);
	}
	if (answer->locale) {
		write_text("/etc/default/locale", 0644, "LANG=%s\n", answer->locale);
		write_text("/etc/locale.conf", 0644, "LANG=%s\n", answer->locale);
	}
	if (answer->updates)
		set_updates_off();
}
