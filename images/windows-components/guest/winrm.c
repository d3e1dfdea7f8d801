/* SPDX-License-Identifier: Apache-2.0 */
/* WinRM over HTTPS with the certificate that the harness made. On the stand-in guest its own listener is told. */
#include "guest.h"

#include <winsock2.h>

#include "../run/start.h"

#include <string.h>

enum { HTTPS_PORT = 5986, PATIENCE_MS = 180000, STEP_MS = 20 };

/* Runs a command line; its exit code. */
static DWORD run(const char *line)
{
	STARTUPINFOW how = {.cb = sizeof how};
	PROCESS_INFORMATION made;
	DWORD code;
	if (!start_process(NULL, wide(line), FALSE, CREATE_NO_WINDOW, NULL, NULL, &how, &made))
		return GetLastError();
	WaitForSingleObject(made.hProcess, INFINITE);
	GetExitCodeProcess(made.hProcess, &code);
	CloseHandle(made.hThread);
	CloseHandle(made.hProcess);
	return code;
}

static void run_or_fail(const char *line, const char *what)
{
	DWORD code = run(line);
	if (code)
		fail("%s: the command ended with code %lu", what, code);
}

void open_winrm(const struct answer *answer)
{
	const char *thumbprint = answer->winrm_certificate;
	if (!thumbprint)
		return;
	if (on_stand_in()) {
		ask_stand_in((const char *[]){"winrm", thumbprint}, 2);
		return;
	}
	run_or_fail("sc.exe config WinRM start= auto", "WinRM cannot be made to start by itself");
	run("net.exe start WinRM"); /* it may run already */
	run("cmd.exe /c winrm.cmd delete winrm/config/Listener?Address=*+Transport=HTTPS");
	run_or_fail(format("cmd.exe /c winrm.cmd create winrm/config/Listener?Address=*+Transport=HTTPS "
			   "@{CertificateThumbprint=\"%s\"}",
			   thumbprint),
		    "the HTTPS listener of WinRM cannot be made");
	run_or_fail("netsh.exe advfirewall firewall add rule name=VMRoleWinRM dir=in action=allow protocol=TCP "
		    "localport=5986",
		    "the firewall cannot be opened for WinRM");
}

static bool listens(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	address.sin_port = htons(HTTPS_PORT);
	SOCKET sock = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
	bool connected = connect(sock, (struct sockaddr *)&address, sizeof address) == 0;
	closesocket(sock);
	return connected;
}

bool await_winrm(HANDLE stopped)
{
	WSADATA data;
	WSAStartup(MAKEWORD(2, 2), &data);
	for (int waited = 0; !listens(); waited += STEP_MS) {
		if (waited >= PATIENCE_MS)
			fail("WinRM did not start to listen on port %d", HTTPS_PORT);
		if (!stopped)
			Sleep(STEP_MS);
		else if (WaitForSingleObject(stopped, STEP_MS) == WAIT_OBJECT_0)
			return false;
	}
	return true;
}
