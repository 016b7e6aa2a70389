/*
 * Sockets for the benchmarks, cheaply: no runtime, one process for up to 19,000 of them. Ends with its parent.
 *
 *   sockets serve ADDRESS PORT...              accepts and echoes on every port; prints "ready"
 *   sockets hold ADDRESS PORT COUNT            opens COUNT connections, prints "ready", keeps them
 *   sockets use ADDRESS PORT COUNT SECONDS     as hold, and uses each of them once in SECONDS
 *   sockets churn ADDRESS PORT COUNT RATE      as hold, then closes the oldest and opens a new one, RATE times a second
 *   sockets ask ADDRESS PORT COUNT             as hold; on SIGUSR1 sends on all at once; prints "NUMBER ended ERRNO SECONDS"
 *                                              for each, as its read returns, or "NUMBER closed ERRNO" where
 *                                              it could not send, and "all COUNT" in the end
 *   sockets fork COUNT ADDRESS PORT            COUNT processes with one connection each
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t asked;

static void on_ask(int signal)
{
    (void)signal;
    asked = 1;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static struct sockaddr_in endpoint(const char *address, const char *port)
{
    struct sockaddr_in e = { .sin_family = AF_INET, .sin_port = htons(atoi(port)) };
    if (inet_pton(AF_INET, address, &e.sin_addr) != 1)
        die(address);
    return e;
}

static void ready(void)
{
    puts("ready");
    fflush(stdout);
}

static _Noreturn void serve(const char *address, char **ports, int count)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    int listeners[16];
    for (int i = 0; i < count && i < 16; i++) {
        struct sockaddr_in e = endpoint(address, ports[i]);
        int on = 1;
        listeners[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        setsockopt(listeners[i], SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(listeners[i], (void *)&e, sizeof e) || listen(listeners[i], 4096))
            die("listen");
        struct epoll_event event = { .events = EPOLLIN, .data.fd = listeners[i] };
        epoll_ctl(epoll, EPOLL_CTL_ADD, listeners[i], &event);
    }
    ready();
    for (;;) {
        struct epoll_event events[256];
        int n = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd, is_listener = 0;
            for (int j = 0; j < count; j++)
                is_listener |= fd == listeners[j];
            if (is_listener) {
                int accepted;
                while ((accepted = accept4(fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    struct epoll_event event = { .events = EPOLLIN, .data.fd = accepted };
                    epoll_ctl(epoll, EPOLL_CTL_ADD, accepted, &event);
                }
                if (errno != EAGAIN && errno != ECONNABORTED)
                    die("accept");
                continue;
            }
            char data[4096];
            ssize_t length = read(fd, data, sizeof data);
            if (length > 0 && write(fd, data, length) == length)
                continue;
            if (length < 0 && errno == EAGAIN)
                continue;
            close(fd);
        }
    }
}

static void exchange(int fd)
{
    char answer;
    if (write(fd, "x", 1) != 1 || read(fd, &answer, 1) != 1)
        die("exchange");
}

/* One exchange on each connection, so that it is a used one and not merely open. */
static int open_one(const struct sockaddr_in *to)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    if (connect(fd, (const void *)to, sizeof *to))
        die("connect");
    exchange(fd);
    return fd;
}

static int *hold(const struct sockaddr_in *to, int count)
{
    int *fds = calloc(count, sizeof *fds);
    for (int i = 0; i < count; i++)
        fds[i] = open_one(to);
    ready();
    return fds;
}

/* Waits until it is time for step number done of so many a second. */
static void keep_pace(double began, long done, double rate)
{
    double ahead = began + done / rate - now();
    if (ahead > 0.001)
        usleep((useconds_t)(ahead * 1e6));
}

static void use(int *fds, int count, int seconds)
{
    double began = now();
    for (long done = 0;; done++) {
        keep_pace(began, done, (double)count / seconds);
        exchange(fds[done % count]);
    }
}

static void churn(const struct sockaddr_in *to, int *fds, int count, int rate)
{
    double began = now();
    for (long done = 0;; done++) {
        keep_pace(began, done, rate);
        int i = done % count;
        close(fds[i]);
        fds[i] = open_one(to);
    }
}

static void ask(int *fds, int count)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC), left = count;
    double *sent = calloc(count, sizeof *sent);
    while (!asked)
        pause();
    for (int i = 0; i < count; i++) {
        struct epoll_event event = { .events = EPOLLIN, .data.u32 = i };
        sent[i] = now();
        if (write(fds[i], "y", 1) == 1) {
            epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event);
        } else {
            printf("%d closed %d\n", i, errno);
            left--;
        }
    }
    while (left > 0) {
        struct epoll_event events[64];
        int n = epoll_wait(epoll, events, 64, -1);
        for (int k = 0; k < n; k++) {
            char answer;
            int i = events[k].data.u32;
            ssize_t got = read(fds[i], &answer, 1);
            printf("%d ended %d %.6f\n", i, got < 0 ? errno : 0, now() - sent[i]);
            fflush(stdout);
            close(fds[i]);
            left--;
        }
    }
    printf("all %d\n", count);
    fflush(stdout);
    for (;;)
        pause();
}

int main(int argc, char **argv)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGUSR1, on_ask);
    if (argc >= 4 && !strcmp(argv[1], "serve"))
        serve(argv[2], argv + 3, argc - 3);
    if (argc == 5 && !strcmp(argv[1], "fork")) {
        struct sockaddr_in to = endpoint(argv[3], argv[4]);
        int count = atoi(argv[2]), done[2];
        char byte;
        if (pipe(done))
            die("pipe");
        for (int i = 0; i < count; i++) {
            pid_t pid = fork();
            if (pid < 0)
                die("fork");
            if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                open_one(&to);
                if (write(done[1], "x", 1) != 1)
                    die("pipe");
                for (;;)
                    pause();
            }
        }
        for (int i = 0; i < count; i++)
            if (read(done[0], &byte, 1) != 1)
                die("pipe");
        ready();
        for (;;)
            pause();
    }
    if (argc < 5) {
        fputs("usage: sockets serve|hold|use|churn|ask|fork ...\n", stderr);
        return 2;
    }
    struct sockaddr_in to = endpoint(argv[2], argv[3]);
    int count = atoi(argv[4]);
    int *fds = hold(&to, count);
    if (!strcmp(argv[1], "use") && argc == 6)
        use(fds, count, atoi(argv[5]));
    if (!strcmp(argv[1], "churn") && argc == 6)
        churn(&to, fds, count, atoi(argv[5]));
    if (!strcmp(argv[1], "ask"))
        ask(fds, count);
    for (;;)
        pause();
}
