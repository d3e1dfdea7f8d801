/* SPDX-License-Identifier: Apache-2.0 */
/* sc config | qc | query (all) | description, which Wine's own cannot; it does the rest of what there is. */
#include "tool.h"

static const wchar_t *const of_wine[] = {L"create", L"delete", L"start", L"stop", L"query", NULL};
static const char *const starts[] = {"BOOT_START", "SYSTEM_START", "AUTO_START", "DEMAND_START", "DISABLED"};
static const char *const states[] = {"",        "STOPPED",          "START_PENDING", "STOP_PENDING",
				     "RUNNING", "CONTINUE_PENDING", "PAUSE_PENDING", "PAUSED"};

static int failed(const char *what)
{
	printf("[SC] %s FAILED %lu:\n", what, GetLastError());
	return (int)GetLastError();
}

static SC_HANDLE open_service(const wchar_t *name, DWORD access)
{
	SC_HANDLE manager = OpenSCManagerW(NULL, NULL, SC_MANAGER_CONNECT);
	return manager ? OpenServiceW(manager, name, access) : NULL;
}

static DWORD start_type(const wchar_t *word)
{
	static const wchar_t *const words[] = {L"boot", L"system", L"auto", L"demand", L"disabled"};
	for (DWORD i = 0; i < 5; i++)
		if (is(word, words[i]))
			return i;
	unavailable_operation(L"sc", L"config start=");
}

static int config(const wchar_t *name, int count, wchar_t **words)
{
	DWORD start = SERVICE_NO_CHANGE;
	const wchar_t *program = NULL, *shown = NULL;
	for (int i = 0; i < count; i += 2) {
		if (i + 1 == count)
			unavailable_operation(L"sc", L"config");
		if (is(words[i], L"start="))
			start = start_type(words[i + 1]);
		else if (is(words[i], L"binPath="))
			program = words[i + 1];
		else if (is(words[i], L"DisplayName="))
			shown = words[i + 1];
		else
			unavailable_operation(L"sc config", words[i]);
	}
	SC_HANDLE service = open_service(name, SERVICE_CHANGE_CONFIG);
	if (!service)
		return failed("OpenService");
	if (!ChangeServiceConfigW(service, SERVICE_NO_CHANGE, start, SERVICE_NO_CHANGE, program, NULL, NULL, NULL, NULL,
				  NULL, shown))
		return failed("ChangeServiceConfig");
	printf("[SC] ChangeServiceConfig SUCCESS\n");
	return 0;
}

static int query_config(const wchar_t *name)
{
	static union {
		QUERY_SERVICE_CONFIGW config;
		BYTE room[8192];
	} data;
	DWORD size;
	SC_HANDLE service = open_service(name, SERVICE_QUERY_CONFIG);
	if (!service)
		return failed("OpenService");
	if (!QueryServiceConfigW(service, &data.config, sizeof data, &size))
		return failed("QueryServiceConfig");
	const QUERY_SERVICE_CONFIGW *config = &data.config;
	printf("[SC] QueryServiceConfig SUCCESS\n\nSERVICE_NAME: %ls\n", name);
	printf("        TYPE               : %lx\n", config->dwServiceType);
	printf("        START_TYPE         : %lu   %s\n", config->dwStartType,
	       config->dwStartType < 5 ? starts[config->dwStartType] : "");
	printf("        ERROR_CONTROL      : %lu\n", config->dwErrorControl);
	printf("        BINARY_PATH_NAME   : %ls\n", config->lpBinaryPathName);
	printf("        DISPLAY_NAME       : %ls\n", config->lpDisplayName);
	printf("        SERVICE_START_NAME : %ls\n",
	       config->lpServiceStartName ? config->lpServiceStartName : L"LocalSystem");
	return 0;
}

static int query_all(void)
{
	static BYTE room[256 * 1024];
	DWORD needed, count, next = 0;
	SC_HANDLE manager = OpenSCManagerW(NULL, NULL, SC_MANAGER_ENUMERATE_SERVICE);
	if (!manager || !EnumServicesStatusExW(manager, SC_ENUM_PROCESS_INFO, SERVICE_WIN32, SERVICE_ACTIVE, room,
					       sizeof room, &needed, &count, &next, NULL))
		return failed("EnumQueryServicesStatus");
	const ENUM_SERVICE_STATUS_PROCESSW *all = (const ENUM_SERVICE_STATUS_PROCESSW *)room;
	for (DWORD i = 0; i < count; i++) {
		DWORD state = all[i].ServiceStatusProcess.dwCurrentState;
		printf("\nSERVICE_NAME: %ls\nDISPLAY_NAME: %ls\n        TYPE               : %lx\n        STATE        "
		       "      : %lu  %s\n",
		       all[i].lpServiceName, all[i].lpDisplayName, all[i].ServiceStatusProcess.dwServiceType, state,
		       state < 8 ? states[state] : "");
	}
	return 0;
}

static int describe(const wchar_t *name, wchar_t *text)
{
	SERVICE_DESCRIPTIONW description = {text};
	SC_HANDLE service = open_service(name, SERVICE_CHANGE_CONFIG);
	if (!service)
		return failed("OpenService");
	if (!ChangeServiceConfig2W(service, SERVICE_CONFIG_DESCRIPTION, &description))
		return failed("ChangeServiceConfig2");
	printf("[SC] ChangeServiceConfig2 SUCCESS\n");
	return 0;
}

int wmain(int argc, wchar_t **argv)
{
	const wchar_t *what = argc > 1 ? argv[1] : L"";
	if (is(what, L"config") && argc > 2)
		return config(argv[2], argc - 3, argv + 3);
	if (is(what, L"qc") && argc == 3)
		return query_config(argv[2]);
	if (is(what, L"query") && argc == 2)
		return query_all();
	if (is(what, L"description") && argc == 4)
		return describe(argv[2], argv[3]);
	for (int i = 0; of_wine[i]; i++)
		if (is(what, of_wine[i]) && argc > 2 && !wcschr(argv[2], L'='))
			return run_wines(SYSTEM32, L"sc");
	unavailable_operation(L"sc", what);
}
