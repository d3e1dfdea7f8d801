/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's side of docs/instance-medium.md: one static program with several faces (main.c). */
#ifndef VMROLE_AGENT_H
#define VMROLE_AGENT_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

#ifndef COMPONENTS_VERSION
#error "COMPONENTS_VERSION is defined by the image builder"
#endif

#define AGENT "/usr/lib/vmrole/agent"
#define COMPONENTS "/usr/lib/vmrole/components"
#define COMPONENTS_PROGRAM "vmrole-components"
#define STATE "/var/lib/vmrole"
#define STATE_INSTANCE STATE "/instance.conf"
#define STATE_VERSION STATE "/components-version"
#define RECYCLE STATE "/recycle" /* names of local resources, a line each, that the next boot empties */
#define RUNTIME "/run/vmrole"
#define MEDIUM RUNTIME "/medium"
#define INSTANCE STATE "/instance"     /* instance data that came over the channel */
#define START_SSH RUNTIME "/start-ssh" /* vmrole-ssh.path waits for it */
#define READY RUNTIME "/ready"
#define CERTIFICATES "/var/lib/waagent"
#define RESOURCES "/resources"

/* console.c: the stages, and the one sentence of a failure. */
void stage(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Announces the failure (the first one only, in whichever process) and ends the calling process. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* fail() with the text of errno behind the sentence. */
_Noreturn void fail_errno(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* files.c: every file is written beside its place and renamed; durability is one sync before `ready`. */
void make_folder(const char *path, mode_t mode); /* with its parents; the last one gets `mode` */
void write_file(const char *path, mode_t mode, const void *data, size_t size);
void write_text(const char *path, mode_t mode, const char *format, ...) __attribute__((format(printf, 3, 4)));
char *read_file(const char *path, size_t most, size_t *size); /* malloc'ed, 0-terminated; NULL with errno */
void copy_file(const char *from, const char *to, mode_t mode);
void copy_tree(const char *from, const char *to); /* files and folders only; `to` exists */
void link_symbolic(const char *target, const char *path);
bool exists(const char *path);
void remove_tree(const char *path); /* what is not there is removed already */

/* answer.c: answer.conf and instance.conf. */
enum { MOST_NICS = 8, MOST_CERTIFICATES = 64, MOST_RESOURCES = 32, MOST_KEYS = 16 };

struct nic {
	unsigned char mac[6];
	struct in_addr address, gateway, nameserver; /* gateway and nameserver may be 0: none */
	int prefix;
};

struct certificate {
	const char *thumbprint, *store;
};

struct resource {
	unsigned long megabytes;
	const char *name;
};

struct answer { /* strings point into one decoded copy of the document, NULL where absent */
	const char *instance, *computer_name, *time_zone, *locale, *updates, *password_hash, *machine_id, *entropy,
		*payload;
	double time;    /* seconds since 1970, 0 where absent */
	bool await_ssh; /* ready means that the ssh server answers */
	const char *keys[MOST_KEYS];
	struct nic nics[MOST_NICS];
	struct certificate certificates[MOST_CERTIFICATES];
	struct resource resources[MOST_RESOURCES];
	int key_count, nic_count, certificate_count, resource_count;
};

void read_answer(const char *path, struct answer *answer);
void write_state(const struct answer *answer); /* what later boots need, without secrets */

/* medium.c */
bool medium_find(char *device, size_t size); /* the drive that holds a medium labelled VMROLE */
void medium_mount(const char *device);
void medium_unmount(void);

/* process.c */
int run(char *const argv[], char *output, size_t size); /* exit code; standard output if `output` */
pid_t in_parallel(void (*task)(const struct answer *), const struct answer *answer);
void await(pid_t pid);
void notify_ready(void); /* systemd's Type=notify */

/* manager.c */
bool guest_stops(void); /* whether the service manager is about to stop or restart the guest */

/* The tasks of specialization. All of them end in fail() when they cannot do what they were asked. */
void set_entropy(const struct answer *answer); /* identity.c */
void set_clock(const struct answer *answer, bool stood_still);
void renew(void); /* both of them anew, from standard input: a guest that goes on from a checkpoint */
void set_identity(const struct answer *answer);
void set_settings(const struct answer *answer);
void set_administrator(const struct answer *answer); /* administrator.c */
void set_host_key(void);
void set_network(const struct answer *answer); /* network.c */
bool port_listens(unsigned short port);
void install_certificates(const struct answer *answer); /* certificates.c */
void make_resources(const struct answer *answer);       /* resources.c */
void mount_resources(const struct answer *answer);      /* at a later boot, some of them emptied */
void make_spares(unsigned long megabytes, int count);   /* for local resources to come, before a guest is frozen */

/* partner.c: what an image has beside this agent, such as what makes a Linux a stand-in for another system. */
bool has_partner(void);
void ask_partner(const char *what, const char *folder); /* returns when it is done */

/* The faces. */
_Noreturn void initramfs(void);             /* initramfs.c */
_Noreturn void resident(void);              /* resident.c */
_Noreturn void components_specialize(void); /* components.c; the medium is mounted */
_Noreturn void components_restore(void);
/* Started by cloud-init from the mounted medium, in a guest without an agent. They return. */
void components_install(void);    /* one instance of it, and an agent from the next boot on */
void components_generalize(void); /* an agent only, which is started then */
extern const char *instance_data; /* the folder of the instance data: the medium, or INSTANCE */
void specialize_received(void);   /* from INSTANCE; the clock of a fork stood still */

/* serve.c: takes commands over the channel for as long as the machine lives; a generalized guest also waits for its
 * instance data, over the channel or (then it returns) on a medium. */
void serve_generalized(char *device, size_t size);
_Noreturn void serve(const struct answer *answer);

#endif
