/* A program with memory policies, which tells on which nodes it gets memory.
 *
 *     bound MODE NODES THREADS AREA
 *
 * MODE is the number of a mode with its flags; NODES a mask of nodes; AREA is `private`, `shared`
 * (with a forked process), or `none`. Each thread sets the policy for itself, unless there is an
 * area: then that has it. It prints `ready`, and obeys lines on its standard input:
 *
 *     threads      allocate in each thread
 *     area         touch more of the area
 *     fork         allocate in a new process
 *     policies     tell each thread's policy
 *
 * and answers with one line: `NODE:PAGES …`, or `MODE/MASK …`. */
#define _GNU_SOURCE
#include <linux/mempolicy.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 64
#define NODES 64
#define AREA_PAGES (PAGES * 256)
#define MOST 64

static unsigned long mode, mask, found[NODES], policies[MOST][2];
static pthread_barrier_t begin, end;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int threads;
static char *area;
static size_t touched;

static void touch(char *memory)
{
    for (int page = 0; page < PAGES; page++) {
        int node = -1;

        memory[page * PAGE] = 1;
        if (syscall(SYS_get_mempolicy, &node, NULL, 0, memory + page * PAGE,
                    MPOL_F_NODE | MPOL_F_ADDR) ||
            node < 0 || node >= NODES)
            exit(3);
        pthread_mutex_lock(&lock);
        found[node]++;
        pthread_mutex_unlock(&lock);
    }
}

static void allocate(void)
{
    char *memory =
        mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        exit(4);
    touch(memory);
    munmap(memory, PAGES * PAGE);
}

static void set_policy(void)
{
    if (mode && !area && syscall(SYS_set_mempolicy, mode, &mask, NODES + 1)) {
        perror("set_mempolicy");
        exit(5);
    }
}

static void *work(void *argument)
{
    size_t number = (size_t)argument;

    set_policy();
    for (;;) {
        pthread_barrier_wait(&end);
        pthread_barrier_wait(&begin);
        int now = 0;

        policies[number][1] = 0;
        syscall(SYS_get_mempolicy, &now, &policies[number][1], NODES + 1, NULL, 0);
        policies[number][0] = (unsigned)now;
        allocate();
    }
    return NULL;
}

static void show(void)
{
    for (int node = 0; node < NODES; node++)
        if (found[node])
            printf("%d:%lu ", node, found[node]);
    puts("");
    memset(found, 0, sizeof found);
}

static void touch_area(void)
{
    if (touched + PAGES > AREA_PAGES)
        exit(6);
    touch(area + touched * PAGE);
    touched += PAGES;
}

static void run_threads(void)
{
    pthread_barrier_wait(&begin);
    pthread_barrier_wait(&end);
}

static void run_fork(void)
{
    fflush(stdout);
    pid_t child = fork();

    if (!child) {
        allocate();
        show();
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

static void make_area(const char *kind)
{
    int sharing = strcmp(kind, "shared") ? MAP_PRIVATE : MAP_SHARED;

    area = mmap(NULL, AREA_PAGES * PAGE, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED || madvise(area, AREA_PAGES * PAGE, MADV_NOHUGEPAGE))
        exit(7);
    if (syscall(SYS_mbind, area, (size_t)AREA_PAGES * PAGE, mode, &mask, NODES + 1, 0)) {
        perror("mbind");
        exit(8);
    }
    touch_area();
    if (sharing == MAP_SHARED && !fork()) {
        prctl(PR_SET_PDEATHSIG, 9);
        pause();
        _exit(0);
    }
    memset(found, 0, sizeof found);
}

static void obey(const char *line)
{
    if (!strcmp(line, "threads\n")) {
        run_threads();
        show();
    } else if (!strcmp(line, "area\n")) {
        touch_area();
        show();
    } else if (!strcmp(line, "fork\n")) {
        run_fork();
    } else if (!strcmp(line, "policies\n")) {
        run_threads();
        memset(found, 0, sizeof found);
        for (int number = 0; number < threads; number++)
            printf("%lu/%lu ", policies[number][0], policies[number][1]);
        puts("");
    }
}

int main(int count, char **arguments)
{
    char line[100];

    if (count < 5)
        return 2;
    mode = strtoul(arguments[1], NULL, 0);
    mask = strtoul(arguments[2], NULL, 0);
    threads = atoi(arguments[3]);
    if (strcmp(arguments[4], "none"))
        make_area(arguments[4]);
    setvbuf(stdout, NULL, _IOLBF, 0);
    pthread_barrier_init(&begin, NULL, (unsigned)threads + 1);
    pthread_barrier_init(&end, NULL, (unsigned)threads + 1);
    for (size_t number = 0; number < (size_t)threads; number++) {
        pthread_t thread;

        if (pthread_create(&thread, NULL, work, (void *)number))
            return 9;
    }
    set_policy(); /* not earlier: each thread sets its own */
    pthread_barrier_wait(&end);
    puts("ready");
    while (fgets(line, sizeof line, stdin))
        obey(line);
    return 0;
}
