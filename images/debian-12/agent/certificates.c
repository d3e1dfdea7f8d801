/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates where the platform's agents put them; those of the stores Root and CA also into the system's trust. */
#include "agent.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define TRUST "/etc/ssl/certs"
#define BUNDLE TRUST "/ca-certificates.crt"
#define LOCAL_TRUST "/usr/local/share/ca-certificates"

/* The link <hash>.<n> by which OpenSSL finds an issuer in a folder. */
static void link_by_hash(const char *certificate, const char *target)
{
	char hash[64], path[PATH_MAX];
	char *argv[] = {"/usr/bin/openssl", "x509", "-noout", "-subject_hash", "-in", (char *)certificate, NULL};
	if (run(argv, hash, sizeof hash) != 0 || strspn(hash, "0123456789abcdef") != 8)
		fail("%s cannot be read as a certificate", certificate);
	hash[8] = 0;
	for (int n = 0; n < 100; n++) {
		snprintf(path, sizeof path, TRUST "/%s.%d", hash, n);
		if (exists(path))
			continue;
		link_symbolic(target, path);
		return;
	}
	fail("the system's trust has too many certificates of one name");
}

/* What update-ca-certificates would do, for one certificate: it alone takes seconds on an emulated processor. */
static void trust(const char *thumbprint, const char *certificate)
{
	char local[PATH_MAX], link[PATH_MAX], name[160];
	size_t size, extra;
	snprintf(local, sizeof local, LOCAL_TRUST "/vmrole-%s.crt", thumbprint);
	snprintf(name, sizeof name, "vmrole-%s.pem", thumbprint);
	snprintf(link, sizeof link, TRUST "/%s", name);
	if (exists(link))
		return; /* in both stores */
	copy_file(certificate, local, 0644);
	link_symbolic(local, link);
	link_by_hash(local, name);
	char *bundle = read_file(BUNDLE, 16 << 20, &size), *added = read_file(local, 1 << 20, &extra);
	if (!bundle || !added)
		fail_errno("the system's trust cannot be read");
	bundle = realloc(bundle, size + extra + 1);
	if (!bundle)
		fail("the guest is out of memory");
	memcpy(bundle + size, added, extra);
	write_file(BUNDLE, 0644, bundle, size + extra);
	free(bundle);
	free(added);
}

void install_certificates(const struct answer *answer)
{
	make_folder(CERTIFICATES, 0700);
	for (int i = 0; i < answer->certificate_count; i++) {
		const struct certificate *certificate = &answer->certificates[i];
		static const char *const kinds[] = {"crt", "prv"};
		char from[PATH_MAX], to[PATH_MAX];
		for (int kind = 1; kind >= 0; kind--) {
			snprintf(from, sizeof from, "%s/certificates/%s.%s", instance_data, certificate->thumbprint,
				 kinds[kind]);
			snprintf(to, sizeof to, CERTIFICATES "/%s.%s", certificate->thumbprint, kinds[kind]);
			if (kind == 0 || exists(from)) /* not every certificate has its key */
				copy_file(from, to, 0600);
		}
		if (strcasecmp(certificate->store, "Root") == 0 || strcasecmp(certificate->store, "CA") == 0)
			trust(certificate->thumbprint, to);
	}
}
