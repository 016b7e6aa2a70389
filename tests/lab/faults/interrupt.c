/*
 * Runs a program and interferes with chosen system calls of it, told apart by what is in them:
 *
 *     interrupt [-w FILE] RULE... -- PROGRAM ARGUMENT...
 *
 * A rule is CALL MATCH ACTION in one word, parted by '/':
 *
 *     write/TEXT/ACTION          write(2) of bytes that contain TEXT
 *     rename/TEXT/ACTION         rename(2) of a path that contains TEXT
 *     netlink/TYPE/ACTION        send(2) of a netlink message of that type
 *     answer/FLAGS/ACTION        recv(2) with these flags
 *     pidfd/PID/ACTION           pidfd_open(2) of that process
 *     signal/NUMBER/ACTION       pidfd_send_signal(2) of that signal
 *     kill/NUMBER/ACTION         kill(2) with that signal
 *     fsync//ACTION              fsync(2)
 *
 * ACTION is kill-before (SIGKILL to the whole program instead of the call), kill-after (once the call has returned),
 * errno=N (the call is not made and fails so), or hold (the call is made once FILE is gone). With -w rules hold only while
 * FILE exists. Each deed is told on stdout.
 *
 * The calls are stopped at by a seccomp filter, so that all others run at full speed. x86-64, root.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

struct rule {
    long call;
    const char *kind, *match, *action;
};

static struct rule rules[16];
static int count;
static const char *armed_by;
static pid_t program;

static const struct { const char *kind; long call; } calls[] = {
    { "write", SYS_write }, { "rename", SYS_rename }, { "netlink", SYS_sendto }, { "answer", SYS_recvfrom },
    { "pidfd", SYS_pidfd_open }, { "signal", SYS_pidfd_send_signal }, { "kill", SYS_kill }, { "fsync", SYS_fsync },
};

static void die(const char *what)
{
    fprintf(stderr, "interrupt: %s: %s\n", what, strerror(errno));
    exit(126);
}

static void add_rule(char *text)
{
    struct rule *rule = &rules[count++];
    rule->kind = strtok(text, "/");
    char *rest = text + strlen(text) + 1;
    char *end = strrchr(rest, '/');
    if (!rule->kind || !end || count == 16) {
        errno = EINVAL;
        die("rule");
    }
    *end = 0;
    rule->match = rest;
    rule->action = end + 1;
    rule->call = -1;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (!strcmp(calls[i].kind, rule->kind))
            rule->call = calls[i].call;
    if (rule->call < 0) {
        errno = EINVAL;
        die(rule->kind);
    }
}

static void filter_calls(void)
{
    struct sock_filter code[2 + 2 * 16 + 1];
    int n = 0;
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < count; i++) {
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, rules[i].call, 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
    }
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog whole = { .len = n, .filter = code };
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &whole) != 0)
        die("seccomp");
}

/* Bytes of the other process; what cannot be read is empty. */
static size_t peek(pid_t pid, unsigned long long from, void *to, size_t length)
{
    struct iovec here = { to, length }, there = { (void *)from, length };
    ssize_t got = process_vm_readv(pid, &here, 1, &there, 1, 0);
    return got < 0 ? 0 : got;
}

static int matches(const struct rule *rule, pid_t pid, const struct user_regs_struct *r)
{
    static char bytes[65536];
    size_t length;
    unsigned short type;
    if ((long)r->orig_rax != rule->call)
        return 0;
    switch (rule->call) {
    case SYS_write:
        length = peek(pid, r->rsi, bytes, r->rdx < sizeof bytes ? r->rdx : sizeof bytes);
        return memmem(bytes, length, rule->match, strlen(rule->match)) != NULL;
    case SYS_rename:
        /* A path may end just before a page that is not there. */
        for (length = 0; length < 4095 && peek(pid, r->rdi + length, bytes + length, 1) == 1 && bytes[length]; length++)
            ;
        return memmem(bytes, length, rule->match, strlen(rule->match)) != NULL;
    case SYS_sendto:
        return r->rdx >= 16 && peek(pid, r->rsi + 4, &type, 2) == 2 && type == atoi(rule->match);
    case SYS_recvfrom:
        return r->r10 == (unsigned long long)atoi(rule->match);
    case SYS_pidfd_open:
        return r->rdi == (unsigned long long)atoi(rule->match);
    case SYS_kill:
    case SYS_pidfd_send_signal:
        return r->rsi == (unsigned long long)atoi(rule->match);
    default:
        return 1;
    }
}

static void tell(const struct rule *rule)
{
    printf("interrupt: %s/%s/%s\n", rule->kind, rule->match, rule->action);
    fflush(stdout);
}

/* Whether the call is to be stopped at again when it returns. */
static int consider(pid_t pid)
{
    struct user_regs_struct registers;
    if ((armed_by && access(armed_by, F_OK) != 0) || ptrace(PTRACE_GETREGS, pid, 0, &registers) != 0)
        return 0;
    for (int i = 0; i < count; i++) {
        const struct rule *rule = &rules[i];
        if (!matches(rule, pid, &registers))
            continue;
        if (!strcmp(rule->action, "kill-after"))
            return 1;
        tell(rule);
        if (!strcmp(rule->action, "kill-before")) {
            kill(program, SIGKILL);
            return 0;
        }
        if (!strcmp(rule->action, "hold")) {
            while (armed_by && access(armed_by, F_OK) == 0)
                usleep(1000);
            return 0;
        }
        registers.orig_rax = -1;
        registers.rax = -atoi(strchr(rule->action, '=') + 1);
        ptrace(PTRACE_SETREGS, pid, 0, &registers);
        return 0;
    }
    return 0;
}

int main(int argc, char **argv)
{
    int i = 1;
    for (; i < argc && strcmp(argv[i], "--"); i++) {
        if (!strcmp(argv[i], "-w") && i + 1 < argc)
            armed_by = argv[++i];
        else
            add_rule(argv[i]);
    }
    if (i + 1 >= argc || count == 0) {
        fprintf(stderr, "usage: interrupt [-w FILE] RULE... -- PROGRAM ARGUMENT...\n");
        return 2;
    }

    program = fork();
    if (program < 0)
        die("fork");
    if (program == 0) {
        if (ptrace(PTRACE_TRACEME, 0, 0, 0) != 0)
            die("ptrace");
        raise(SIGSTOP);
        filter_calls();
        execvp(argv[i + 1], argv + i + 1);
        die(argv[i + 1]);
    }

    int status;
    if (waitpid(program, &status, 0) != program)
        die("waitpid");
    if (ptrace(PTRACE_SETOPTIONS, program, 0,
               PTRACE_O_EXITKILL | PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC | PTRACE_O_TRACESYSGOOD) != 0)
        die("ptrace options");
    ptrace(PTRACE_CONT, program, 0, 0);

    for (;;) {
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0)
            return errno == ECHILD ? 0 : 126;
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (pid == program)
                return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            continue;
        }
        if (!WIFSTOPPED(status))
            continue;
        int stop = WSTOPSIG(status), event = status >> 16;
        if (event == PTRACE_EVENT_SECCOMP) {
            ptrace(consider(pid) ? PTRACE_SYSCALL : PTRACE_CONT, pid, 0, 0);
        } else if (stop == (SIGTRAP | 0x80)) {
            /* The call that is to be the last one: stopped at on its way in, and on its way out. */
            struct user_regs_struct registers;
            if (ptrace(PTRACE_GETREGS, pid, 0, &registers) == 0 && (long)registers.rax != -ENOSYS) {
                printf("interrupt: after\n");
                fflush(stdout);
                kill(program, SIGKILL);
            }
            ptrace(PTRACE_SYSCALL, pid, 0, 0);
        } else if (event || stop == SIGTRAP) {
            ptrace(PTRACE_CONT, pid, 0, 0);
        } else {
            /* A new thread's first stop is not its own doing; any other signal is. */
            ptrace(PTRACE_CONT, pid, 0, stop == SIGSTOP ? 0 : stop);
        }
    }
}
