/*
 * The floor under a sweep: the agent's own request, sent and received in a few lines of C that keep nothing.
 * What this takes is the kernel's work and two system calls per 32 KiB; no observer that reads TCP_INFO can be faster.
 *
 *   floor FILTER-IN-HEX        one dump per line on standard input; answers "SOCKETS NANOSECONDS"
 */
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char request[70000];
static char buffer[65536];

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static size_t from_hex(const char *hex, unsigned char *to)
{
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++)
        sscanf(hex + 2 * i, "%2hhx", to + i);
    return n;
}

/* TCPDIAG_GETSOCK dumps both address families in one walk over the kernel's table. */
static size_t build(const char *hex)
{
    struct nlmsghdr *header = (void *)request;
    struct inet_diag_req *body = NLMSG_DATA(header);
    size_t at = NLMSG_LENGTH(sizeof *body);
    struct nlattr *filter = (void *)(request + at);
    size_t length = from_hex(hex, (unsigned char *)(filter + 1));

    filter->nla_len = sizeof *filter + length;
    filter->nla_type = INET_DIAG_REQ_BYTECODE;
    header->nlmsg_len = at + (length ? NLMSG_ALIGN(filter->nla_len) : 0);
    header->nlmsg_type = TCPDIAG_GETSOCK;
    header->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    body->idiag_states = 1 << 1 | 1 << 8; /* ESTABLISHED, CLOSE_WAIT */
    body->idiag_ext = 1 << (INET_DIAG_INFO - 1);
    return header->nlmsg_len;
}

static int dump(int fd, size_t length, long *sockets)
{
    *sockets = 0;
    if (send(fd, request, length, 0) < 0)
        return -1;
    for (;;) {
        ssize_t n = recv(fd, buffer, sizeof buffer, 0);
        if (n < 0)
            return -1;
        unsigned left = n;
        for (struct nlmsghdr *h = (void *)buffer; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
            if (h->nlmsg_type == NLMSG_DONE)
                return 0;
            if (h->nlmsg_type == NLMSG_ERROR) {
                errno = -*(int *)NLMSG_DATA(h);
                return -1;
            }
            ++*sockets;
        }
    }
}

int main(int argc, char **argv)
{
    char line[16];
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    size_t length = build(argc > 1 ? argv[1] : "");

    if (fd < 0) {
        perror("socket");
        return 1;
    }
    while (fgets(line, sizeof line, stdin)) {
        long sockets;
        long long began = now();
        if (dump(fd, length, &sockets)) {
            perror("dump");
            return 1;
        }
        printf("%ld %lld\n", sockets, now() - began);
        fflush(stdout);
    }
    return 0;
}
