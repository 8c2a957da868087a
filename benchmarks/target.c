/* A process whose memory is moved, and which measures how long it has to wait.
 *
 *   target KIND MIB NODE
 *
 * KIND: anon (small pages), thp (transparent huge pages), sparse (1 TiB of address space, of which
 * MIB are used, in scattered runs of 64 KiB), areas (each page an area: every other one can only be
 * read), gaps (each page an area, between two that are not mapped), processes (a child for each
 * MiB, which has that one). Prints `ready START BYTES` and reads commands, one per line: `probe`
 * starts a thread that writes to one page after the other and maps and unmaps a page in between, as
 * an allocator does; `stall` prints the longest write and the longest map-and-unmap since the last
 * `stall`, in ns; `work` starts a thread that, every 2 ms, writes to a page, reads another one, and
 * maps, fills and unmaps 64 KiB now and then. */
#define _GNU_SOURCE
#include <pthread.h>
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

#define PAGE 4096ul
#define HUGE (2ul << 20)
#define RUN (64ul << 10)
#define RESERVED (1ul << 40)
#define MPOL_BIND 2

static char *memory;
static size_t used, run = RUN, stride = RUN;
static atomic_ullong longest_touch, longest_map;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* The page with this number among those in use. */
static char *page(size_t number)
{
    return memory + number / (run / PAGE) * stride + number % (run / PAGE) * PAGE;
}

static void note(atomic_ullong *longest, uint64_t took)
{
    if (took > atomic_load(longest))
        atomic_store(longest, took);
}

static void *probe(void *unused)
{
    size_t pages = used / PAGE;

    for (size_t number = 0;; number = (number + 7919) % pages) {
        uint64_t began = now();

        *(volatile char *)page(number) = 1;
        note(&longest_touch, now() - began);
        if (number % 16)
            continue;
        began = now();
        char *extra = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (extra == MAP_FAILED || munmap(extra, PAGE))
            die("mmap");
        note(&longest_map, now() - began);
        usleep(500); /* an emulated machine has few processors */
    }
    return unused;
}

static void *work(void *unused)
{
    size_t pages = used / PAGE;

    for (size_t number = 0;; number = (number + 7919) % pages) {
        *(volatile char *)page(number) = 1;
        (void)*(volatile char *)page((number + pages / 2) % pages);
        if (number % 16 == 0) {
            char *extra =
                mmap(NULL, RUN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

            if (extra == MAP_FAILED)
                die("mmap");
            memset(extra, 1, RUN);
            if (munmap(extra, RUN))
                die("munmap");
        }
        usleep(2000);
    }
    return unused;
}

/* Make each page an area of its own. */
static void part(int gaps)
{
    for (char *at = memory; at < page(used / PAGE); at += 2 * PAGE)
        if (gaps ? munmap(at + PAGE, PAGE) : mprotect(at, PAGE, PROT_READ))
            die("munmap, mprotect");
}

/* Touch MIB megabytes in as many children, which end with this process. */
static void spread(size_t mib)
{
    int done[2];
    char byte;

    if (pipe(done))
        die("pipe");
    for (size_t each = 0; each < mib; each++) {
        pid_t child = fork();

        if (child < 0)
            die("fork");
        if (child)
            continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (size_t at = 0; at < 1ul << 20; at += PAGE)
            memory[at] = 1;
        if (write(done[1], "", 1) != 1)
            die("write");
        for (;;)
            pause();
    }
    for (size_t each = 0; each < mib; each++)
        if (read(done[0], &byte, 1) != 1)
            die("read");
}

int main(int count, char **arguments)
{
    char line[32];
    size_t room;
    int sparse, gaps;

    if (count != 4)
        return 2;
    unsigned long mask = 1ul << atoi(arguments[3]);
    used = strtoul(arguments[2], NULL, 10) << 20;
    sparse = !strcmp(arguments[1], "sparse");
    gaps = !strcmp(arguments[1], "gaps");
    room = sparse ? RESERVED : gaps ? 2 * used : used;
    if (sparse)
        stride = RESERVED / (used / RUN) / PAGE * PAGE;
    if (gaps) {
        run = PAGE;
        stride = 2 * PAGE;
    }
    if (syscall(SYS_set_mempolicy, MPOL_BIND, &mask, 65ul))
        die("set_mempolicy");
    char *start = mmap(NULL, room + HUGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED)
        die("mmap");
    memory = (char *)(((uintptr_t)start + HUGE - 1) / HUGE * HUGE);
    if (madvise(memory, room, strcmp(arguments[1], "thp") ? MADV_NOHUGEPAGE : MADV_HUGEPAGE))
        die("madvise");
    if (!strcmp(arguments[1], "processes"))
        spread(used >> 20);
    else
        for (size_t number = 0; number < used / PAGE; number++)
            *page(number) = 1;
    if (gaps || !strcmp(arguments[1], "areas"))
        part(gaps);
    if (syscall(SYS_set_mempolicy, 0, NULL, 0ul))
        die("set_mempolicy");
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("ready %lx %lu\n", (unsigned long)memory, room);
    while (fgets(line, sizeof line, stdin)) {
        int probes = !strncmp(line, "probe", 5);

        if (probes || !strncmp(line, "work", 4)) {
            pthread_t thread;

            if (pthread_create(&thread, NULL, probes ? probe : work, NULL))
                die("pthread_create");
            puts("started");
        } else {
            unsigned long long touch = atomic_exchange(&longest_touch, 0);

            printf("%llu %llu\n", touch, (unsigned long long)atomic_exchange(&longest_map, 0));
        }
    }
    return 0;
}
