/* SPDX-License-Identifier: Apache-2.0 */
/* The answer document: lines key=value with %XX escapes. The keys of the Linux agent are not for this program. */
#include "guest.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static int hexadecimal(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	digit = (char)(digit | 0x20);
	return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

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

static bool is_thumbprint(const char *text)
{
	return strlen(text) == 40 && strspn(text, "0123456789ABCDEFabcdef") == 40;
}

static void parse_certificate(char *value, struct answer *answer)
{
	char *blank = strchr(value, ' ');
	if (answer->certificate_count == MOST_CERTIFICATES)
		fail("the answer document has more than %d certificates", MOST_CERTIFICATES);
	if (blank)
		*blank++ = 0;
	if (!blank || !*blank || strchr(blank, '\\') || !is_thumbprint(value))
		fail("the answer document's certificate is not '<thumbprint> <store>'");
	answer->certificates[answer->certificate_count++] = (struct certificate){value, blank};
}

static void parse_resource(char *value, struct answer *answer)
{
	char *name;
	unsigned long megabytes = strtoul(value, &name, 10);
	if (answer->resource_count == MOST_RESOURCES)
		fail("the answer document has more than %d local resources", MOST_RESOURCES);
	if (!isdigit((unsigned char)*value) || *name != ' ' || !megabytes)
		fail("the answer document's local-resource is not '<megabytes> <name>'");
	name++;
	if (!*name || strlen(name) > 200 || strpbrk(name, "\\/:*?\"<>|") || strcmp(name, ".") == 0 ||
	    strcmp(name, "..") == 0)
		fail("the answer document's local-resource has a name that cannot be a folder");
	answer->resources[answer->resource_count++] = (struct resource){megabytes, name};
}

static void parse_line(const char *key, char *value, struct answer *answer)
{
	if (strcmp(key, "instance") == 0)
		answer->instance = value;
	else if (strcmp(key, "pfx-password") == 0)
		answer->pfx_password = value;
	else if (strcmp(key, "winrm-certificate") == 0)
		answer->winrm_certificate = value;
	else if (strcmp(key, "payload") == 0)
		answer->payload = value;
	else if (strcmp(key, "certificate") == 0)
		parse_certificate(value, answer);
	else if (strcmp(key, "local-resource") == 0)
		parse_resource(value, answer);
	else if (strcmp(key, "schema") == 0 && strcmp(value, "1") != 0)
		fail("the answer document has schema %.20s, these components know schema 1", value);
}

static void check(const struct answer *answer)
{
	if (!answer->instance || !*answer->instance || strpbrk(answer->instance, " \t"))
		fail("the answer document has no instance, or one that is not a token");
	if (answer->winrm_certificate && !is_thumbprint(answer->winrm_certificate))
		fail("the answer document's winrm-certificate is not a thumbprint");
	if (answer->payload && (!isalpha((unsigned char)answer->payload[0]) ||
				strncmp(answer->payload + 1, ":\\", 2) != 0 || strstr(answer->payload, "..")))
		fail("the answer document's payload is not an absolute folder");
}

static void parse(char *text, struct answer *answer)
{
	memset(answer, 0, sizeof *answer);
	for (char *line = text, *end; *line; line = end) {
		end = line + strcspn(line, "\n");
		if (*end)
			*end++ = 0;
		char *equals = strchr(line, '=');
		if (!equals)
			fail("the answer document has a line without '='");
		*equals = 0;
		decode(equals + 1, line);
		parse_line(line, equals + 1, answer);
	}
	check(answer);
}

void read_answer(const wchar_t *path, struct answer *answer)
{
	char *text = read_file(path, 1 << 20, NULL); /* kept: the answer points into it */
	if (!text)
		fail_error(GetLastError(), "%s cannot be read", narrow(path));
	parse(text, answer);
}

bool read_instance(struct answer *answer)
{
	char *text = read_file(INSTANCE, 1 << 20, NULL);
	if (text)
		parse(text, answer);
	return text != NULL;
}

static char *escape(const char *value)
{
	char *text = format("%*s", (int)strlen(value) * 3, ""), *to = text;
	for (const unsigned char *c = (const unsigned char *)value; *c; c++)
		if (*c == '%' || *c < 0x20 || *c >= 0x7f) {
			strcpy(to, format("%%%02X", *c));
			to += 3;
		} else {
			*to++ = (char)*c;
		}
	*to = 0;
	return text;
}

void write_instance(const struct answer *answer)
{
	char *text = format("schema=1\ninstance=%s\n", answer->instance);
	if (answer->winrm_certificate)
		text = format("%swinrm-certificate=%s\n", text, answer->winrm_certificate);
	for (int i = 0; i < answer->certificate_count; i++)
		text = format("%scertificate=%s %s\n", text, answer->certificates[i].thumbprint,
			      escape(answer->certificates[i].store));
	for (int i = 0; i < answer->resource_count; i++)
		text = format("%slocal-resource=%lu %s\n", text, answer->resources[i].megabytes,
			      escape(answer->resources[i].name));
	if (answer->payload)
		text = format("%spayload=%s\n", text, escape(answer->payload));
	write_file(INSTANCE, text, strlen(text));
}
