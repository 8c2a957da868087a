/* Many small processes, each of which acts at a random moment while they are moved.
 *
 *   crowd COUNT PAGES NODE ACTION MICROSECONDS
 *
 * Each fills PAGES pages at a fixed address, bound to NODE. Together they print `ready`; after a
 * line on standard input, each waits for a random part of the time and then acts: `exec` becomes
 * another program with the same amount of other memory, also bound to NODE; `exit` exits; `fork`
 * makes a child that writes all pages and so gets its own copies on NODE. Every second process only
 * waits.
 *
 * Page 0 holds the number of the image (1, or 2 after the action, 0 until it is filled) and the
 * time when it was filled, in ns of CLOCK_MONOTONIC; each other page holds its address times the
 * image's number. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PLACE 0x100000000000ul
#define MPOL_DEFAULT 0
#define MPOL_BIND 2

struct gate {
    atomic_uint ready, open;
};

static void check(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static void fill(uint64_t pages, int node, uint64_t image)
{
    unsigned long mask = 1ul << node;
    uint64_t *start = (uint64_t *)PLACE;
    struct timespec now;

    start[0] = 0; /* not filled yet */
    check(!syscall(SYS_set_mempolicy, MPOL_BIND, &mask, 65ul), "set_mempolicy");
    for (uint64_t page = 1; page < pages; page++) {
        uint64_t *word = start + page * PAGE / 8;

        *word = (uint64_t)(uintptr_t)word * image;
    }
    start[0] = image;
    clock_gettime(CLOCK_MONOTONIC, &now);
    start[1] = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    check(!syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0ul), "set_mempolicy");
}

static void map_memory(uint64_t pages)
{
    void *start = mmap((void *)PLACE, pages * PAGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    check(start == (void *)PLACE, "mmap");
    check(!madvise(start, pages * PAGE, MADV_NOHUGEPAGE), "madvise");
}

static void live_on(void)
{
    for (;;)
        pause();
}

static void act(char **arguments, uint64_t pages, int node)
{
    const char *action = arguments[4];

    if (!strcmp(action, "exec")) {
        char *words[] = {arguments[0], arguments[2], arguments[3], NULL};

        execv("/proc/self/exe", words);
        check(0, "execv");
    }
    if (!strcmp(action, "exit"))
        _exit(0);
    if (!strcmp(action, "fork") && !fork()) {
        prctl(PR_SET_PDEATHSIG, 9);
        fill(pages, node, 2);
    }
}

static void live(char **arguments, unsigned number, struct gate *gate)
{
    uint64_t pages = strtoul(arguments[2], NULL, 10);
    int node = atoi(arguments[3]);

    prctl(PR_SET_PDEATHSIG, 9);
    map_memory(pages);
    fill(pages, node, 1);
    gate->ready++;
    while (!gate->open)
        usleep(1000);
    if (number % 4) {
        srand(number + (unsigned)getpid());
        usleep((useconds_t)(rand() % atol(arguments[5])));
        act(arguments, pages, node);
    }
    live_on();
}

int main(int count, char **arguments)
{
    char line[10];
    unsigned many;
    struct gate *gate;

    if (count == 3) { /* the other program */
        uint64_t pages = strtoul(arguments[1], NULL, 10);

        prctl(PR_SET_PDEATHSIG, 9);
        map_memory(pages);
        fill(pages, atoi(arguments[2]), 2);
        live_on();
    }
    if (count != 6)
        return 2;
    signal(SIGCHLD, SIG_IGN); /* leave no zombies */
    many = (unsigned)atoi(arguments[1]);
    gate = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(gate != MAP_FAILED, "mmap");
    for (unsigned number = 0; number < many; number++)
        if (!fork())
            live(arguments, number, gate);
    while (gate->ready < many)
        usleep(1000);
    puts("ready");
    fflush(stdout);
    check(fgets(line, sizeof line, stdin) != NULL, "fgets");
    gate->open = 1;
    live_on();
}
