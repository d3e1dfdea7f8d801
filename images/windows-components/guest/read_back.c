/* SPDX-License-Identifier: Apache-2.0 */
/* What the guest became, as lines key=value: one process instead of twenty. */
#include "guest.h"

#include <stdio.h>
#include <string.h>

#define TIME_ZONE L"SYSTEM\\CurrentControlSet\\Control\\TimeZoneInformation"

static void print(const char *key, const char *value)
{
	printf("%s=%s\n", key, value);
}

static char *registry_text(const wchar_t *key, const wchar_t *name)
{
	wchar_t value[512];
	DWORD size = sizeof value;
	if (RegGetValueW(HKEY_LOCAL_MACHINE, key, name, RRF_RT_REG_SZ, NULL, value, &size) != ERROR_SUCCESS)
		return "-";
	return narrow(value);
}

static char *registry_number(const wchar_t *key, const wchar_t *name)
{
	DWORD value, size = sizeof value;
	if (RegGetValueW(HKEY_LOCAL_MACHINE, key, name, RRF_RT_REG_DWORD, NULL, &value, &size) != ERROR_SUCCESS)
		return "-";
	return format("%lu", value);
}

static void names(void)
{
	wchar_t name[256] = L"";
	DWORD size = 256;
	GetComputerNameExW(ComputerNamePhysicalDnsHostname, name, &size);
	print("computer-name", narrow(name));
	print("computer-name-registry",
	      registry_text(L"SYSTEM\\CurrentControlSet\\Control\\ComputerName\\ComputerName", L"ComputerName"));
}

static void times(void)
{
	DYNAMIC_TIME_ZONE_INFORMATION zone = {0};
	FILETIME now;
	DWORD kind = GetDynamicTimeZoneInformation(&zone);
	LONG bias = zone.Bias + (kind == TIME_ZONE_ID_DAYLIGHT ? zone.DaylightBias : zone.StandardBias);
	GetSystemTimeAsFileTime(&now);
	unsigned long long ticks = (unsigned long long)now.dwHighDateTime << 32 | now.dwLowDateTime;
	print("time-zone", format("%s %ld", registry_text(TIME_ZONE, L"TimeZoneKeyName"), bias));
	print("clock", format("%.3f", ((double)ticks - 116444736e9) / 1e7));
}

static void locales(void)
{
	wchar_t of_system[LOCALE_NAME_MAX_LENGTH] = L"", of_user[LOCALE_NAME_MAX_LENGTH] = L"";
	GetSystemDefaultLocaleName(of_system, LOCALE_NAME_MAX_LENGTH);
	GetUserDefaultLocaleName(of_user, LOCALE_NAME_MAX_LENGTH);
	print("locale", format("%s %s %04x", narrow(of_system), narrow(of_user), GetUserDefaultUILanguage()));
}

static void updates(void)
{
	print("updates",
	      format("%s %s",
		     registry_number(L"SOFTWARE\\Policies\\Microsoft\\Windows\\WindowsUpdate\\AU", L"NoAutoUpdate"),
		     registry_number(L"SYSTEM\\CurrentControlSet\\Services\\wuauserv", L"Start")));
}

static void components(void)
{
	const char *state = "missing";
	SERVICE_STATUS status;
	SC_HANDLE manager = OpenSCManagerW(NULL, NULL, SC_MANAGER_CONNECT);
	SC_HANDLE service = manager ? OpenServiceW(manager, SERVICE, SERVICE_QUERY_STATUS) : NULL;
	if (service && QueryServiceStatus(service, &status))
		state = status.dwCurrentState == SERVICE_RUNNING ? "running" : "stopped";
	print("version", COMPONENTS_VERSION);
	print("service",
	      format("%s %s", state, registry_number(L"SYSTEM\\CurrentControlSet\\Services\\VMRoleGuest", L"Start")));
	char *product = registry_text(REGISTRY L"\\IntegrationComponents", L"ProductCode");
	wchar_t *uninstall = wide(format("SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Uninstall\\%s", product));
	print("msi", format("%s %s %s", product, registry_text(uninstall, L"DisplayVersion"),
			    registry_text(REGISTRY L"\\IntegrationComponents", L"Version")));
}

static void passwords(void)
{
	for (const wchar_t *const *path = answer_files; *path; path++)
		if (holds_password(*path))
			print("password-left", narrow(*path));
}

static void parts(const struct answer *answer)
{
	for (int i = 0; i < answer->certificate_count; i++) {
		const struct certificate *certificate = &answer->certificates[i];
		char *container = describe_certificate(certificate);
		if (container)
			print("certificate",
			      format("%s %s %s", certificate->thumbprint, container, certificate->store));
	}
	for (int i = 0; i < answer->resource_count; i++) {
		ULARGE_INTEGER free_bytes = {0}, all_bytes = {0};
		wchar_t *path = join(RESOURCES, answer->resources[i].name);
		if (GetFileAttributesW(path) == INVALID_FILE_ATTRIBUTES)
			continue;
		GetDiskFreeSpaceExW(path, &free_bytes, &all_bytes, NULL);
		print("resource", format("%llu %llu %s %s", free_bytes.QuadPart, all_bytes.QuadPart, rights_of(path),
					 answer->resources[i].name));
	}
	if (answer->payload && GetFileAttributesW(wide(answer->payload)) != INVALID_FILE_ATTRIBUTES)
		print("payload", format("%s %s", rights_of(wide(answer->payload)), answer->payload));
}

void read_back(void)
{
	struct answer answer;
	char *marker = read_ready();
	if (marker)
		print("marker", marker);
	print("stand-in", on_stand_in() ? "yes" : "no");
	names();
	times();
	locales();
	updates();
	components();
	passwords();
	if (read_instance(&answer))
		parts(&answer);
}
