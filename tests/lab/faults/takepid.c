/*
 * Runs a program under a process id of one's choice:
 *
 *     takepid PID PROGRAM ARGUMENT...
 *
 * Waits some seconds for the id to become free, tells "taken" on stdout once it has it, and ends as the program does.
 * clone3(2) with set_tid, since Linux 5.5; CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the pid namespace.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: takepid PID PROGRAM ARGUMENT...\n");
        return 2;
    }
    pid_t wanted = atoi(argv[1]);
    struct clone_args how = { .exit_signal = SIGCHLD, .set_tid = (unsigned long)&wanted, .set_tid_size = 1 };
    long got = -1;
    for (int tries = 0; tries < 10000; tries++) {
        got = syscall(SYS_clone3, &how, sizeof how);
        if (got >= 0 || errno != EEXIST)
            break;
        usleep(1000);
    }
    if (got < 0) {
        fprintf(stderr, "takepid: %d: %s\n", wanted, strerror(errno));
        return 126;
    }
    if (got == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execvp(argv[2], argv + 2);
        fprintf(stderr, "takepid: %s: %s\n", argv[2], strerror(errno));
        _exit(127);
    }
    printf("taken\n");
    fflush(stdout);
    int status;
    while (waitpid(wanted, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
