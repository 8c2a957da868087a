/* A job that makes nine of ten accesses to a fifth of its memory, and knows where they go.
 *
 *   hot MIB CHUNK_KIB NODE [huge]
 *
 * Maps memory of so many MiB on node 0, in which every fifth chunk is used most, prints `ready
 * START` and reads from it at random, on a processor of NODE. Of some of the accesses it asks the
 * kernel for the node of the page (get_mempolicy(2)). `watch`: begins to count these, in windows of
 * 100 ms. `told`: ends it, and prints for each window `LOCAL/ALL`, LOCAL being accesses to memory
 * of NODE. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "lab.h"
#include "pages.h"

#define MPOL_BIND 2
#define MPOL_F_NODE 1ul
#define MPOL_F_ADDR 2ul
#define WINDOWS 6000
#define WINDOW_NS 100000000l

static volatile char *memory;
static size_t pages, chunk;
static int home;
static atomic_int watching;
static struct timespec began;
static uint32_t local[WINDOWS], all[WINDOWS];

static uint64_t next_random(void)
{
    static uint64_t state = 88172645463325252ull;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* Return a page of a fifth of the chunks, or of the others. */
static size_t choose_page(int hot)
{
    size_t fives = pages / chunk / 5, which = next_random() % fives;
    size_t within = next_random() % chunk, place = hot ? 3 : next_random() % 4;

    if (!hot && place == 3)
        place = 4;
    return (which * 5 + place) * chunk + within;
}

static void count(volatile char *address)
{
    struct timespec now;
    int node = -1;
    long window;

    if (syscall(SYS_get_mempolicy, &node, NULL, 0ul, address, MPOL_F_NODE | MPOL_F_ADDR))
        die("get_mempolicy");
    clock_gettime(CLOCK_MONOTONIC, &now);
    window = ((now.tv_sec - began.tv_sec) * 1000000000l + now.tv_nsec - began.tv_nsec) / WINDOW_NS;
    if (window < WINDOWS) {
        all[window]++;
        local[window] += node == home;
    }
}

static void *use(void *unused)
{
    long sum = 0;

    run_on(home);
    for (uint64_t access = 0;; access++) {
        volatile char *address = memory + choose_page(next_random() % 10 != 0) * PAGE;

        sum += *address;
        if (access % 256 == 0 && watching)
            count(address);
    }
    return sum ? unused : NULL;
}

int main(int count, char **arguments)
{
    unsigned long mask = 1;
    pthread_t thread;
    char line[100];

    if (count < 4)
        return 2;
    pages = strtoul(arguments[1], NULL, 10) * 1024 * 1024 / PAGE;
    chunk = strtoul(arguments[2], NULL, 10) * 1024 / PAGE;
    home = atoi(arguments[3]);
    memory =
        mmap(NULL, pages * PAGE + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        die("mmap");
    memory = (volatile char *)(((uintptr_t)memory + HUGE - 1) & ~(HUGE - 1));
    if (madvise((char *)memory, pages * PAGE, count > 4 ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
        die("madvise");
    if (syscall(SYS_set_mempolicy, MPOL_BIND, &mask, 65ul))
        die("set_mempolicy");
    memset((char *)memory, 1, pages * PAGE);
    if (syscall(SYS_set_mempolicy, 0, NULL, 0ul))
        die("set_mempolicy");
    if (pthread_create(&thread, NULL, use, NULL))
        die("pthread_create");
    setvbuf(stdout, NULL, _IOLBF, 1 << 16);
    printf("ready %lx\n", (unsigned long)memory);
    while (fgets(line, sizeof line, stdin)) {
        if (!strncmp(line, "watch", 5)) {
            memset(local, 0, sizeof local);
            memset(all, 0, sizeof all);
            clock_gettime(CLOCK_MONOTONIC, &began);
            watching = 1;
            puts("ok");
        } else if (!strncmp(line, "told", 4)) {
            watching = 0;
            for (size_t i = 0; i < WINDOWS; i++)
                if (all[i])
                    printf("%zu:%u/%u ", i, local[i], all[i]);
            putchar('\n');
        }
    }
    return 0;
}
