/* SPDX-License-Identifier: Apache-2.0 */
/* The resident agent: waits for the instance medium and hands over to the components of the version on it. */
#include "agent.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>
#include <stdlib.h>

/* Reads the version in the file `path`: one line that is safe as the name of a folder. */
static char *read_version(const char *path)
{
	char *version = read_file(path, 128, NULL);
	if (!version)
		fail_errno("%s cannot be read", path);
	version[strcspn(version, "\r\n")] = 0;
	size_t length = strlen(version);
	if (length == 0 || length > 80 || version[0] == '.' ||
	    strspn(version, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.+_~-") != length)
		fail("the version of the components in %s is not a version", path);
	return version;
}

/* Continues as the components of `version`: in this process if they are these, else as their program. */
static _Noreturn void become(const char *version, const char *what)
{
	char path[PATH_MAX];
	if (strcmp(version, COMPONENTS_VERSION) == 0) {
		if (strcmp(what, "restore") == 0)
			components_restore();
		components_specialize();
	}
	snprintf(path, sizeof path, COMPONENTS "/%s/" COMPONENTS_PROGRAM, version);
	execl(path, path, what, (char *)NULL);
	fail_errno("the integration components %s cannot be started", version);
}

static void install(const char *version)
{
	char folder[PATH_MAX], program[PATH_MAX];
	snprintf(folder, sizeof folder, COMPONENTS "/%s", version);
	snprintf(program, sizeof program, COMPONENTS "/%.100s/" COMPONENTS_PROGRAM, version);
	if (exists(program) || strcmp(version, COMPONENTS_VERSION) == 0)
		return;
	stage("installing-components");
	make_folder(folder, 0755);
	copy_file(MEDIUM "/components/" COMPONENTS_PROGRAM, program, 0755);
}

void resident(void)
{
	char device[PATH_MAX];
	stage("booting");
	make_folder(RUNTIME, 0700);
	if (exists(STATE_INSTANCE))
		become(read_version(STATE_VERSION), "restore");
	serve_generalized(device, sizeof device);
	medium_mount(device);
	char *version = read_version(MEDIUM "/components/VERSION");
	install(version);
	become(version, "specialize");
}
