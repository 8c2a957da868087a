/* Processes whose numbers are reused by other processes as soon as they are free; for
 * test_reuse.py.
 *
 *     recycle KIB
 *
 * reads commands, one per line, and answers each except `churn` and `end`:
 *
 * - targets N T FILE: start N processes of T additional threads, with KIB of memory on node 0 at
 * the same address; FILE is the cgroup.procs that they join, or - for none
 * - churn N US HOW: kill N of them one by one, after up to US microseconds each, and let a stranger
 *   have each number: `aimed` at once, by ns_last_pid; `round` when the kernel reaches the number
 * - end N US: end N threads in the same way
 * - wait: do nothing
 * - check: print what happened to the strangers, and forget all processes
 *
 * A stranger is a fork: from the start it has memory on node 0 at the target's address. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lab.h"

#define MOST 4096
#define TRIES 40

static char *const memory = (char *)0x100000000000;
static size_t length;
static pid_t targets[MOST], strangers[MOST];
static size_t target_count, stranger_count, missed;
/* Threads that wait for their end: how many must end, and the number of the last one that did. */
static struct shared {
    atomic_uint to_end;
    atomic_int ended;
} *shared;

static void map_on_first_node(void)
{
    unsigned long mask = 1;

    if (mmap(memory, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
             0) == MAP_FAILED)
        die("mmap");
    madvise(memory, length, MADV_NOHUGEPAGE);
    if (syscall(SYS_mbind, memory, length, MPOL_BIND, &mask, 64ul, 0u))
        die("mbind");
    memset(memory, 1, length);
}

static void *wait_for_the_end(void *unused)
{
    unsigned seen = atomic_load(&shared->to_end);

    for (;;) {
        syscall(SYS_futex, &shared->to_end, FUTEX_WAIT, seen, NULL, NULL, 0);
        unsigned now = atomic_load(&shared->to_end);
        int none = 0;

        if (now != seen && atomic_compare_exchange_strong(&shared->ended, &none, gettid()))
            syscall(SYS_exit, 0);
        seen = now;
    }
    return unused;
}

static void be_target(unsigned threads, const char *join, int ready)
{
    int file;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (strcmp(join, "-")) {
        file = open(join, O_WRONLY);
        if (file < 0 || write(file, "0", 1) != 1)
            die(join);
        close(file);
    }
    map_on_first_node();
    while (threads--) {
        pthread_t thread;

        if (pthread_create(&thread, NULL, wait_for_the_end, NULL))
            die("pthread_create");
    }
    if (write(ready, "x", 1) != 1)
        die("write");
    for (;;)
        pause();
}

static void start_targets(unsigned count, unsigned threads, const char *join)
{
    int ready[2];
    char byte;

    if (pipe(ready))
        die("pipe");
    atomic_store(&shared->ended, 0);
    for (unsigned i = 0; i < count; i++) {
        pid_t pid = fork();

        if (pid < 0)
            die("fork");
        if (!pid)
            be_target(threads, join, ready[1]);
        targets[target_count++] = pid;
        if (read(ready[0], &byte, 1) != 1)
            die("read");
    }
    close(ready[0]);
    close(ready[1]);
    printf("targets");
    for (size_t i = 0; i < target_count; i++)
        printf(" %d", targets[i]);
    puts("");
}

/* Whether a new process has this number; those with other numbers end at once. */
static bool become(const pid_t *wanted, size_t count, pid_t *got)
{
    pid_t pid = fork();

    if (pid < 0)
        die("fork");
    if (!pid) {
        for (size_t i = 0; i < count; i++)
            if (wanted[i] == getpid()) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (;;)
                    pause();
            }
        _exit(0);
    }
    for (size_t i = 0; i < count; i++)
        if (wanted[i] == pid) {
            *got = pid;
            return true;
        }
    waitpid(pid, NULL, 0);
    return false;
}

static void aim(pid_t number)
{
    char text[20];
    int size = snprintf(text, sizeof text, "%d", number - 1);
    pid_t got;

    for (int i = 0; i < TRIES;
         i++) { /* other processes fork, too, and a thread may not have ended yet */
        int file = open("/proc/sys/kernel/ns_last_pid", O_WRONLY);

        if (file < 0 || write(file, text, (size_t)size) != size)
            die("ns_last_pid");
        close(file);
        if (become(&number, 1, &got)) {
            strangers[stranger_count++] = got;
            return;
        }
    }
    missed++;
}

static void wait_up_to(unsigned microseconds)
{
    usleep(microseconds ? (unsigned)rand() % microseconds : 0);
}

static void kill_target(size_t index)
{
    kill(targets[index], SIGKILL);
    waitpid(targets[index], NULL, 0);
}

static void churn(unsigned count, unsigned microseconds, bool aimed)
{
    pid_t wanted[MOST];
    size_t open = 0;

    for (unsigned i = 0; i < count; i++) {
        pid_t number = targets[i];

        wait_up_to(microseconds);
        kill_target(i);
        if (aimed)
            aim(number);
        else
            wanted[open++] = number;
    }
    for (int left = 100000; open && left; left--) {
        pid_t got;

        if (!become(wanted, open, &got))
            continue;
        strangers[stranger_count++] = got;
        for (size_t i = 0; i < open; i++)
            if (wanted[i] == got)
                wanted[i] = wanted[--open];
    }
    missed += open;
    memmove(targets, targets + count, (target_count - count) * sizeof *targets);
    target_count -= count;
}

static void end_threads(unsigned count, unsigned microseconds)
{
    while (count--) {
        int number;

        wait_up_to(microseconds);
        atomic_store(&shared->ended, 0);
        atomic_fetch_add(&shared->to_end, 1);
        syscall(SYS_futex, &shared->to_end, FUTEX_WAKE, 1 << 30, NULL, NULL, 0);
        while (!(number = atomic_load(&shared->ended)))
            sched_yield();
        aim(number);
    }
}

/* The strangers share this process's memory: a page that was moved for them is moved here. */
static size_t strayed(void)
{
    static void *pages[MOST];
    static int status[MOST];
    size_t count = length / PAGE, moved = 0;

    for (size_t i = 0; i < count; i++)
        pages[i] = memory + i * PAGE;
    if (syscall(SYS_move_pages, 0, count, pages, NULL, status, 0))
        die("move_pages");
    for (size_t i = 0; i < count; i++)
        moved += status[i] != 0;
    return moved;
}

static void check(void)
{
    cpu_set_t mine, theirs;
    size_t bound = 0, moved = strayed();

    sched_getaffinity(0, sizeof mine, &mine);
    for (size_t i = 0; i < stranger_count; i++)
        bound +=
            sched_getaffinity(strangers[i], sizeof theirs, &theirs) || !CPU_EQUAL(&mine, &theirs);
    printf("reused %zu missed %zu moved %zu bound %zu\n", stranger_count, missed, moved, bound);
    for (size_t i = 0; i < target_count; i++)
        kill_target(i);
    for (size_t i = 0; i < stranger_count; i++) {
        kill(strangers[i], SIGKILL);
        waitpid(strangers[i], NULL, 0);
    }
    target_count = stranger_count = missed = 0;
    if (moved)
        map_on_first_node();
}

int main(int count, char **arguments)
{
    char line[300], text[256];
    unsigned number, other;

    if (count != 2)
        return 2;
    length = strtoul(arguments[1], NULL, 10) << 10;
    if (length / PAGE > MOST)
        return 2;
    shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        die("mmap");
    map_on_first_node();
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "targets %u %u %255s", &number, &other, text) == 3)
            start_targets(number, other, text);
        else if (sscanf(line, "churn %u %u %255s", &number, &other, text) == 3)
            churn(number, other, !strcmp(text, "aimed"));
        else if (sscanf(line, "end %u %u", &number, &other) == 2)
            end_threads(number, other);
        else if (!strncmp(line, "check", 5))
            check();
        else if (!strncmp(line, "wait", 4))
            puts("done");
        else
            return 2;
    }
    return 0;
}
