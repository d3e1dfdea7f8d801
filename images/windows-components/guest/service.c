/* SPDX-License-Identifier: Apache-2.0 */
/* The Windows service: at each boot of a machine it says that the machine is ready. In a generalized guest it waits. */
#include "guest.h"

static SERVICE_STATUS_HANDLE handle;
static HANDLE stopped;

static void report(DWORD state)
{
	SERVICE_STATUS status = {
		.dwServiceType = SERVICE_WIN32_OWN_PROCESS,
		.dwCurrentState = state,
		.dwControlsAccepted = state == SERVICE_RUNNING ? SERVICE_ACCEPT_STOP | SERVICE_ACCEPT_SHUTDOWN : 0,
	};
	SetServiceStatus(handle, &status);
}

static DWORD WINAPI on_control(DWORD control, DWORD event, void *data, void *context)
{
	(void)event, (void)data, (void)context;
	if (control == SERVICE_CONTROL_SHUTDOWN)
		DeleteFileW(READY); /* of this boot */
	if (control == SERVICE_CONTROL_STOP || control == SERVICE_CONTROL_SHUTDOWN) {
		report(SERVICE_STOP_PENDING);
		SetEvent(stopped);
		return NO_ERROR;
	}
	return control == SERVICE_CONTROL_INTERROGATE ? NO_ERROR : ERROR_CALL_NOT_IMPLEMENTED;
}

static void WINAPI service_main(DWORD count, wchar_t **words)
{
	struct answer answer;
	(void)count, (void)words;
	handle = RegisterServiceCtrlHandlerExW(SERVICE, on_control, NULL);
	stopped = CreateEventW(NULL, TRUE, FALSE, NULL);
	report(SERVICE_RUNNING);
	announcing = true;
	if (read_instance(&answer)) {
		recycle_resources(&answer);
		if (await_winrm(stopped))
			announce_ready(&answer);
	}
	WaitForSingleObject(stopped, INFINITE);
	report(SERVICE_STOPPED);
}

int run_service(void)
{
	SERVICE_TABLE_ENTRYW table[] = {{(wchar_t *)SERVICE, service_main}, {NULL, NULL}};
	if (!StartServiceCtrlDispatcherW(table))
		fail_error(GetLastError(), "only the service manager starts the service");
	return 0;
}
