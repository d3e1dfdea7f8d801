/* SPDX-License-Identifier: Apache-2.0 */
/* The answer document: lines key=value with %XX escapes; unknown keys are errors. */
#include "agent.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int hexadecimal(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	digit = (char)(digit | 0x20);
	return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/* Decodes %XX in place. Values are for text files and names: a NUL byte in one would cut it short. */
static void decode(char *value, const char *key)
{
	char *to = value;
	for (char *from = value; *from; from++) {
		if (*from != '%') {
			*to++ = *from;
			continue;
		}
		int high = hexadecimal(from[1]), low = high < 0 ? -1 : hexadecimal(from[2]);
		if (low < 0 || (high == 0 && low == 0))
			fail("the answer document has a broken escape in %s", key);
		*to++ = (char)(high << 4 | low);
		from += 2;
	}
	*to = 0;
}

static bool digits_only(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (hexadecimal(text[i]) < 0)
			return false;
	return text[length] == 0;
}

static bool name_only(const char *text, const char *allowed, size_t most)
{
	size_t length = strlen(text);
	if (length == 0 || length > most)
		return false;
	for (; *text; text++)
		if (!isalnum((unsigned char)*text) && !strchr(allowed, *text))
			return false;
	return true;
}

/* An address, or "-" for none. */
static bool parse_address(const char *text, struct in_addr *address)
{
	address->s_addr = 0;
	return strcmp(text, "-") == 0 || inet_pton(AF_INET, text, address) == 1;
}

static void parse_nic(char *value, struct nic *nic)
{
	char *mac = strtok(value, " "), *address = strtok(NULL, " "), *gateway = strtok(NULL, " "),
	     *nameserver = strtok(NULL, " "), *slash = address ? strchr(address, '/') : NULL;
	unsigned char *m = nic->mac;
	if (!nameserver || !slash || strtok(NULL, " "))
		fail("the answer document's nic is not '<mac> <address>/<prefix> <gateway> <nameserver>'");
	*slash++ = 0;
	char *end;
	nic->prefix = (int)strtol(slash, &end, 10);
	if (sscanf(mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", m, m + 1, m + 2, m + 3, m + 4, m + 5) != 6 || *end ||
	    end == slash || nic->prefix < 1 || nic->prefix > 32 || inet_pton(AF_INET, address, &nic->address) != 1 ||
	    !parse_address(gateway, &nic->gateway) || !parse_address(nameserver, &nic->nameserver))
		fail("the answer document's nic has an address that cannot be read");
}

static void parse_certificate(char *value, struct certificate *certificate)
{
	char *blank = strchr(value, ' ');
	if (!blank || !blank[1])
		fail("the answer document's certificate is not '<thumbprint> <store>'");
	*blank = 0;
	certificate->thumbprint = value;
	certificate->store = blank + 1;
	if (!*value || strlen(value) > 64 || !digits_only(value, strlen(value)))
		fail("the answer document's certificate has a thumbprint that is not hexadecimal");
}

static void parse_resource(char *value, struct resource *resource)
{
	char *end;
	errno = 0;
	resource->megabytes = strtoul(value, &end, 10);
	resource->name = end + 1;
	if (errno || !isdigit((unsigned char)*value) || *end != ' ' || resource->megabytes < 1 ||
	    resource->megabytes > 1UL << 24)
		fail("the answer document's local-resource is not '<megabytes> <name>'");
	if (!*resource->name || strlen(resource->name) > 200 || strchr(resource->name, '/') ||
	    strcmp(resource->name, ".") == 0 || strcmp(resource->name, "..") == 0)
		fail("the answer document's local-resource has a name that cannot be a folder");
}

static void *next(void *list, size_t size, int *count, int most, const char *key)
{
	if (*count >= most)
		fail("the answer document has more than %d lines %s", most, key);
	return (char *)list + size * (size_t)(*count)++;
}

static void set(const char **place, const char *value, const char *key)
{
	if (*place)
		fail("the answer document has two lines %s", key);
	*place = value;
}

static void parse_line(const char *key, char *value, struct answer *a, const char **schema)
{
	const struct {
		const char *key, **place;
	} texts[] = {
		{"schema", schema},
		{"instance", &a->instance},
		{"computer-name", &a->computer_name},
		{"time-zone", &a->time_zone},
		{"locale", &a->locale},
		{"automatic-updates", &a->updates},
		{"administrator-password-hash", &a->password_hash},
		{"machine-id", &a->machine_id},
		{"entropy", &a->entropy},
		{"payload", &a->payload},
	};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		if (strcmp(key, texts[i].key) == 0) {
			set(texts[i].place, value, key);
			return;
		}
	if (strcmp(key, "authorized-key") == 0) {
		*(const char **)next(a->keys, sizeof *a->keys, &a->key_count, MOST_KEYS, key) = value;
	} else if (strcmp(key, "nic") == 0) {
		parse_nic(value, next(a->nics, sizeof *a->nics, &a->nic_count, MOST_NICS, key));
	} else if (strcmp(key, "certificate") == 0) {
		parse_certificate(value, next(a->certificates, sizeof *a->certificates, &a->certificate_count,
					      MOST_CERTIFICATES, key));
	} else if (strcmp(key, "local-resource") == 0) {
		parse_resource(value,
			       next(a->resources, sizeof *a->resources, &a->resource_count, MOST_RESOURCES, key));
	} else if (strcmp(key, "await-ssh") == 0) {
		if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
			fail("the answer document's await-ssh is neither yes nor no");
		a->await_ssh = *value == 'y';
	} else if (strcmp(key, "time") == 0) {
		char *end;
		a->time = strtod(value, &end);
		if (*end || a->time < 1e9 || a->time > 1e11)
			fail("the answer document's time is not seconds since 1970");
	} else if (!has_partner() || !name_only(key, "-", 40)) {
		fail("the answer document has the unknown key %.40s", key);
	}
}

static void check(const struct answer *a, const char *schema)
{
	if (!schema || strcmp(schema, "1") != 0)
		fail("the answer document has schema %.20s, these components know schema 1",
		     schema ? schema : "(none)");
	if (!a->instance || !name_only(a->instance, "-_.", 64))
		fail("the answer document has no instance, or one that is not a token");
	if (a->computer_name && !name_only(a->computer_name, "-", 63))
		fail("the answer document's computer-name cannot be a host name");
	if (a->machine_id && (strlen(a->machine_id) != 32 || !digits_only(a->machine_id, 32)))
		fail("the answer document's machine-id is not 32 hexadecimal digits");
	if (a->entropy && (strlen(a->entropy) != 128 || !digits_only(a->entropy, 128)))
		fail("the answer document's entropy is not 128 hexadecimal digits");
	if (a->time_zone && (!name_only(a->time_zone, "/_+-", 64) || strstr(a->time_zone, "..")))
		fail("the answer document's time-zone is not the name of one");
	if (a->locale && !name_only(a->locale, "_.@-", 64))
		fail("the answer document's locale is not the name of one");
	if (a->updates && strcmp(a->updates, "off") != 0)
		fail("the answer document's automatic-updates is %.20s, these components know off", a->updates);
	if (a->password_hash && strpbrk(a->password_hash, ":\n"))
		fail("the answer document's administrator-password-hash is not a crypt(5) string");
	if (a->payload && !has_partner() && (a->payload[0] != '/' || !a->payload[1] || strstr(a->payload, "/..")))
		fail("the answer document's payload is not an absolute folder");
}

void read_answer(const char *path, struct answer *answer)
{
	const char *schema = NULL;
	size_t size;
	memset(answer, 0, sizeof *answer);
	answer->await_ssh = true;
	char *text = read_file(path, 1 << 20, &size); /* kept: the answer points into it */
	if (!text)
		fail_errno("%s cannot be read", path);
	if (strlen(text) != size)
		fail("the answer document has a NUL byte");
	for (char *line = text, *end; *line; line = end) {
		end = line + strcspn(line, "\n");
		if (*end)
			*end++ = 0;
		if (!*line)
			continue;
		char *equals = strchr(line, '=');
		if (!equals)
			fail("the answer document has a line without '='");
		*equals = 0;
		decode(equals + 1, line);
		parse_line(line, equals + 1, answer, &schema);
	}
	check(answer, schema);
}

/* Writes `value` with the escapes of the document. */
static void put_escaped(FILE *out, const char *value)
{
	for (const unsigned char *c = (const unsigned char *)value; *c; c++)
		if (*c == '%' || *c < 0x20 || *c >= 0x7f)
			fprintf(out, "%%%02X", *c);
		else
			putc(*c, out);
}

void write_state(const struct answer *answer)
{
	char *text = NULL, address[3][INET_ADDRSTRLEN];
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	if (!out)
		fail("the guest is out of memory");
	fprintf(out, "schema=1\ninstance=%s\nawait-ssh=%s\n", answer->instance, answer->await_ssh ? "yes" : "no");
	for (int i = 0; i < answer->nic_count; i++) {
		const struct nic *nic = &answer->nics[i];
		const unsigned char *m = nic->mac;
		const struct in_addr *values[3] = {&nic->address, &nic->gateway, &nic->nameserver};
		for (int j = 0; j < 3; j++)
			if (!values[j]->s_addr || !inet_ntop(AF_INET, values[j], address[j], sizeof address[j]))
				strcpy(address[j], "-");
		fprintf(out, "nic=%02x:%02x:%02x:%02x:%02x:%02x %s/%d %s %s\n", m[0], m[1], m[2], m[3], m[4], m[5],
			address[0], nic->prefix, address[1], address[2]);
	}
	for (int i = 0; i < answer->resource_count; i++) {
		fprintf(out, "local-resource=%lu ", answer->resources[i].megabytes);
		put_escaped(out, answer->resources[i].name);
		putc('\n', out);
	}
	if (fclose(out) != 0)
		fail("the guest is out of memory");
	write_file(STATE_INSTANCE, 0600, text, size);
	free(text);
}
