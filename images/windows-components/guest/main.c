/* SPDX-License-Identifier: Apache-2.0 */
/* One program: what a new machine does once, what it does at each boot, and what it tells about itself. */
#include "guest.h"

#include <stdio.h>
#include <string.h>

static void make_resources(const struct answer *answer)
{
	make_folder(RESOURCES);
	for (int i = 0; i < answer->resource_count; i++) {
		wchar_t *path = join(RESOURCES, answer->resources[i].name);
		make_folder(path);
		restrict_to_administrators(path);
	}
}

static void specialize(const wchar_t *medium)
{
	struct answer answer;
	announcing = true;
	if (!medium)
		medium = find_medium();
	if (!on_stand_in()) /* where another program has announced it */
		stage("specializing");
	read_answer(join(medium, "answer.conf"), &answer);
	make_folder(STATE);
	restrict_to_administrators(STATE);
	turn_updates_off();
	install_certificates(medium, &answer);
	make_resources(&answer);
	if (answer.payload) {
		take_tree(join(medium, "payload"), wide(answer.payload));
		restrict_to_administrators(wide(answer.payload));
	}
	scrub_answer_files(medium);
	write_instance(&answer);
	open_winrm(&answer);
	await_winrm(NULL);
	announce_ready(&answer);
}

static void print_ready(void)
{
	const char *marker = read_ready();
	if (!marker)
		fail("this boot has no ready marker");
	puts(marker);
}

int wmain(int argc, wchar_t **argv)
{
	const char *command = argc > 1 ? narrow(argv[1]) : "";
	if (strcmp(command, "specialize") == 0 && argc <= 3)
		specialize(argc == 3 ? argv[2] : NULL);
	else if (strcmp(command, "read-back") == 0 && argc == 2)
		read_back();
	else if (strcmp(command, "ready") == 0 && argc == 2)
		print_ready();
	else if (strcmp(command, "recycle") == 0 && argc > 2)
		plan_recycle(argv + 2, argc - 2);
	else if (strcmp(command, "version") == 0 && argc == 2)
		puts(COMPONENTS_VERSION);
	else if (strcmp(command, "service") == 0 && argc == 2)
		return run_service();
	else
		fail("usage: vmrole-guest specialize [FOLDER] | read-back | ready | recycle NAME... | version | "
		     "service");
	return 0;
}
