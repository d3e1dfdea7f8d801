/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in guest: what Windows does by itself there, a program outside of Wine does, which listens on a port. */
#include "guest.h"

#include <winsock2.h>

#include <stdlib.h>
#include <string.h>

bool on_stand_in(void)
{
	static int known = -1;
	DWORD size = 0;
	if (known < 0)
		known = RegGetValueW(HKEY_LOCAL_MACHINE, REGISTRY, L"StandIn", RRF_RT_REG_DWORD, NULL, NULL, &size) ==
			ERROR_SUCCESS;
	return known;
}

/* Words and an empty word go there; a line with a code and a text come back. */
void ask_stand_in(const char *const words[], int count)
{
	WSADATA data;
	DWORD port, size = sizeof port;
	char answer[2048];
	int heard = 0, got;
	struct sockaddr_in address = {.sin_family = AF_INET};
	if (RegGetValueW(HKEY_LOCAL_MACHINE, REGISTRY, L"StandIn", RRF_RT_REG_DWORD, NULL, &port, &size) !=
	    ERROR_SUCCESS)
		fail("this is no stand-in guest");
	WSAStartup(MAKEWORD(2, 2), &data);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	address.sin_port = htons((unsigned short)port);
	SOCKET sock = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
	if (connect(sock, (struct sockaddr *)&address, sizeof address) != 0)
		fail_error((DWORD)WSAGetLastError(), "the stand-in guest's own program cannot be reached");
	for (int i = 0; i < count; i++)
		send(sock, words[i], (int)strlen(words[i]) + 1, 0);
	send(sock, "", 1, 0);
	while (heard < (int)sizeof answer - 1 &&
	       (got = recv(sock, answer + heard, (int)sizeof answer - 1 - heard, 0)) > 0)
		heard += got;
	closesocket(sock);
	answer[heard] = 0;
	char *text = strchr(answer, '\n');
	if (!text || strtoul(answer, NULL, 10) != 0)
		fail("%s", text && text[1] ? text + 1 : "the stand-in guest's own program refused");
}
