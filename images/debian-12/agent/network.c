/* SPDX-License-Identifier: Apache-2.0 */
/* Network cards get the addresses of the answer document: no DHCP, nothing to wait for. */
#include "agent.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <net/if.h>
#include <net/route.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PATIENCE_MS = 10000, STEP_MS = 20 };

static bool find_card(const unsigned char mac[6], char name[IFNAMSIZ])
{
	bool found = false;
	char wanted[18], path[300], text[32];
	snprintf(wanted, sizeof wanted, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
		 mac[5]);
	DIR *folder = opendir("/sys/class/net");
	for (struct dirent *entry; folder && !found && (entry = readdir(folder));) {
		if (entry->d_name[0] == '.' || strlen(entry->d_name) >= IFNAMSIZ)
			continue;
		snprintf(path, sizeof path, "/sys/class/net/%s/address", entry->d_name);
		FILE *file = fopen(path, "re");
		if (!file)
			continue;
		if (fgets(text, sizeof text, file) && strncasecmp(text, wanted, 17) == 0) {
			strcpy(name, entry->d_name);
			found = true;
		}
		fclose(file);
	}
	if (folder)
		closedir(folder);
	return found;
}

static struct sockaddr to_sockaddr(struct in_addr address)
{
	struct sockaddr result = {0};
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = address};
	memcpy(&result, &in, sizeof in);
	return result;
}

static void set_card(int sock, const struct nic *nic)
{
	struct ifreq request = {0};
	for (int waited = 0; !find_card(nic->mac, request.ifr_name); waited += STEP_MS) {
		if (waited >= PATIENCE_MS)
			fail("the guest has no network card with the address of the answer document");
		usleep(STEP_MS * 1000); /* its driver is still being loaded */
	}
	struct in_addr mask = {.s_addr = htonl(~0U << (32 - nic->prefix))};
	request.ifr_addr = to_sockaddr(nic->address);
	if (ioctl(sock, SIOCSIFADDR, &request) < 0)
		fail_errno("the address of %s cannot be set", request.ifr_name);
	request.ifr_netmask = to_sockaddr(mask);
	if (ioctl(sock, SIOCSIFNETMASK, &request) < 0)
		fail_errno("the network mask of %s cannot be set", request.ifr_name);
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	if (ioctl(sock, SIOCSIFFLAGS, &request) < 0)
		fail_errno("%s cannot be brought up", request.ifr_name);
	if (!nic->gateway.s_addr)
		return;
	struct rtentry route = {
		.rt_dst = to_sockaddr((struct in_addr){0}),
		.rt_genmask = to_sockaddr((struct in_addr){0}),
		.rt_gateway = to_sockaddr(nic->gateway),
		.rt_flags = RTF_UP | RTF_GATEWAY,
		.rt_dev = request.ifr_name,
	};
	if (ioctl(sock, SIOCADDRT, &route) < 0 && errno != EEXIST)
		fail_errno("the gateway of %s cannot be set", request.ifr_name);
}

void set_network(const struct answer *answer)
{
	char servers[MOST_NICS * 32] = "", address[INET_ADDRSTRLEN];
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		fail_errno("a socket cannot be made");
	for (int i = 0; i < answer->nic_count; i++) {
		const struct nic *nic = &answer->nics[i];
		set_card(sock, nic);
		if (nic->nameserver.s_addr && inet_ntop(AF_INET, &nic->nameserver, address, sizeof address))
			sprintf(servers + strlen(servers), "nameserver %s\n", address);
	}
	close(sock);
	write_text("/etc/resolv.conf", 0644, "%s", servers);
}

static bool listens_in(const char *path, const char *format, unsigned short port)
{
	char line[256];
	bool found = false;
	FILE *table = fopen(path, "re");
	while (table && !found && fgets(line, sizeof line, table)) {
		unsigned local, state;
		if (sscanf(line, format, &local, &state) == 2)
			found = local == port && state == 0x0a;
	}
	if (table)
		fclose(table);
	return found;
}

/* /proc/net/tcp says so without opening a connection, which would cost sshd a process. 0A is LISTEN. A socket that is
 * listened on for both protocols is in the other table only. */
bool port_listens(unsigned short port)
{
	return listens_in("/proc/net/tcp", "%*d: %*8x:%4x %*8x:%*4x %2x", port) ||
	       listens_in("/proc/net/tcp6", "%*d: %*32[0-9A-F]:%4x %*32[0-9A-F]:%*4x %2x", port);
}
