/* The kernel's speed: only the system call, over addresses that are already known.
 *
 *   bare move PID START BYTES STEP NODE THREADS BATCH    move_pages(2), BATCH addresses a call
 *   bare migrate PID FROM TO                             migrate_pages(2), one call
 *
 * STEP is the distance between two addresses: a base page or a huge page. Each thread takes the
 * next batch when it is free. Prints the seconds that the calls took, and how many pages the kernel
 * reports as not moved. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MPOL_MF_MOVE_ALL (1 << 2)
#define MOST_THREADS 256

static int pid, node;
static uint64_t start, step;
static size_t pages, batch;
static atomic_size_t next;
static atomic_long left;

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void *work(void *unused)
{
    void **address = malloc(batch * sizeof *address);
    int *nodes = malloc(batch * sizeof *nodes), *status = malloc(batch * sizeof *status);

    if (!address || !nodes || !status)
        die("malloc");
    for (;;) {
        size_t first = atomic_fetch_add(&next, batch), count = batch;

        if (first >= pages)
            break;
        if (count > pages - first)
            count = pages - first;
        for (size_t i = 0; i < count; i++) {
            address[i] = (void *)(uintptr_t)(start + (first + i) * step);
            nodes[i] = node;
        }
        long result = syscall(SYS_move_pages, pid, count, address, nodes, status, MPOL_MF_MOVE_ALL);

        if (result < 0)
            die("move_pages");
        atomic_fetch_add(&left, result);
    }
    free(address);
    free(nodes);
    free(status);
    return unused;
}

static void move(unsigned threads)
{
    pthread_t thread[MOST_THREADS];

    for (unsigned i = 0; i < threads; i++)
        if (pthread_create(&thread[i], NULL, work, NULL))
            die("pthread_create");
    for (unsigned i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
}

int main(int count, char **arguments)
{
    double began;

    if (count == 5 && !strcmp(arguments[1], "migrate")) {
        unsigned long from = 1ul << atoi(arguments[3]), to = 1ul << atoi(arguments[4]);

        began = now();
        left = syscall(SYS_migrate_pages, atoi(arguments[2]), 65ul, &from, &to);
        if (left < 0)
            die("migrate_pages");
    } else if (count == 9 && !strcmp(arguments[1], "move")) {
        unsigned threads = (unsigned)atoi(arguments[7]);

        pid = atoi(arguments[2]);
        start = strtoull(arguments[3], NULL, 16);
        step = strtoull(arguments[5], NULL, 10);
        pages = strtoull(arguments[4], NULL, 10) / step;
        node = atoi(arguments[6]);
        batch = strtoull(arguments[8], NULL, 10);
        if (!threads || threads > MOST_THREADS || !batch)
            return 2;
        began = now();
        move(threads);
    } else {
        return 2;
    }
    printf("%.6f %ld\n", now() - began, atomic_load(&left));
    return 0;
}
