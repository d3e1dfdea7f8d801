/* SPDX-License-Identifier: Apache-2.0 */
/* The integration components' program in a Windows guest (docs/windows-guest.md). Texts are UTF-8 until Windows gets
 * them; nothing is freed that lives as long as the process. */
#ifndef VMROLE_GUEST_H
#define VMROLE_GUEST_H

#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef COMPONENTS_VERSION
#error "COMPONENTS_VERSION is defined by the builder"
#endif

#define SERVICE L"VMRoleGuest"
#define REGISTRY L"SOFTWARE\\VMRole"
#define STATE L"C:\\ProgramData\\VMRole"
#define READY STATE L"\\ready"
#define INSTANCE STATE L"\\instance.conf" /* what of the answer document later boots and read-back need; no secrets */
#define RESOURCES L"C:\\Resources"
#define ANSWER_FILE L"C:\\unattend.xml"

/* text.c */
char *format(const char *format, ...) __attribute__((format(gnu_printf, 1, 2)));
wchar_t *wide(const char *text);
char *narrow(const wchar_t *text);
wchar_t *join(const wchar_t *folder, const char *name);

/* announce.c: the stages on the first serial port, and the one sentence of a failure. */
extern bool announcing; /* whether failures are announced too */
void stage(const char *text);
_Noreturn void fail(const char *format, ...) __attribute__((format(gnu_printf, 1, 2)));
_Noreturn void fail_error(DWORD error, const char *format, ...) __attribute__((format(gnu_printf, 2, 3)));

/* files.c */
char *read_file(const wchar_t *path, size_t most, size_t *size); /* NULL when it cannot be read; ends with a 0 byte */
void write_file(const wchar_t *path, const void *data, size_t size);
void make_folder(const wchar_t *path);
void take_tree(const wchar_t *from, const wchar_t *to); /* moved where that is possible, else copied */
void restrict_to_administrators(const wchar_t *path);
char *rights_of(const wchar_t *path); /* SDDL */
wchar_t *find_medium(void);

/* answer.c */
enum { MOST_CERTIFICATES = 64, MOST_RESOURCES = 32 };

struct certificate {
	const char *thumbprint, *store;
};

struct resource {
	unsigned long megabytes;
	const char *name;
};

struct answer {
	const char *instance, *pfx_password, *winrm_certificate, *payload;
	struct certificate certificates[MOST_CERTIFICATES];
	struct resource resources[MOST_RESOURCES];
	int certificate_count, resource_count;
};

void read_answer(const wchar_t *path, struct answer *answer);
bool read_instance(struct answer *answer); /* false in a guest that is no machine of its own yet */
void write_instance(const struct answer *answer);

/* certificates.c */
void install_certificates(const wchar_t *medium, const struct answer *answer);
char *describe_certificate(const struct certificate *certificate); /* its key's container, "-", or NULL: not there */

/* recycle.c */
void plan_recycle(wchar_t *const names[], int count); /* of local resources that the next boot empties */
void recycle_resources(const struct answer *answer);  /* if that was planned */

/* settings.c */
void turn_updates_off(void);
void scrub_answer_files(const wchar_t *medium);
bool holds_password(const wchar_t *path); /* or a product key, of an answer file */
extern const wchar_t *const answer_files[];

/* winrm.c */
void open_winrm(const struct answer *answer);
bool await_winrm(HANDLE stopped); /* false when it is stopped (NULL: by nobody) */

/* standin.c: the guest that stands where no Windows can be had */
bool on_stand_in(void);
void ask_stand_in(const char *const words[], int count); /* fails when it refuses */

/* marker.c */
void announce_ready(const struct answer *answer);
char *read_ready(void); /* the marker, NULL while this boot has none */

/* read_back.c, service.c */
void read_back(void);
int run_service(void);

#endif
