/* A job to be moved: memory of one kind, bound to a node while it is filled, and its checksum.
 *
 *   job KIND MIB NODE [PATH]
 *
 * KIND: anon, thp, huge, mlock, file, shm (PATH names the file of the last two), reserve (1 TiB of
 * address space of which MIB are used, in scattered pieces). It prints `ready START BYTES` and then
 * reads commands, one per line: `sum` prints the checksum; `write` starts a thread that rewrites
 * every page's first word; `threads N` starts sleeping threads; `fork` makes a child that shares
 * the memory and only waits to be killed, and prints its pid; `vfork` makes one for which it waits,
 * and which becomes sleep(1) at SIGCONT; `part` makes each page an area of its own, every other one
 * of which can only be read; `leave` ends the first thread and keeps the others; `touch MIB NODE`
 * adds memory; `pin` pins the first 16 pages; `free` unmaps all; `policy MODE NODE` and `home NODE`
 * set a policy for present and future memory; `undumpable` denies access to other processes of its
 * user; `churn KIND MIB` starts a thread that keeps changing further memory, and `churned` prints
 * how often it has (churn.c). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "pages.h"

#define MPOL_DEFAULT 0
#define MPOL_BIND 2
#define SET_MEMPOLICY_HOME_NODE 450 /* Linux 5.17 */

void churn_start(const char *kind, size_t bytes);
unsigned long churn_count(void);

static char *memory;
static size_t length, stride = PAGE;

static void die(const char *what)
{
    fprintf(stderr, "job: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void bind_to(int node)
{
    unsigned long mask = 1ul << node;

    if (syscall(SYS_set_mempolicy, MPOL_BIND, &mask, 65ul))
        die("set_mempolicy");
}

static void bind_nowhere(void)
{
    if (syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0ul))
        die("set_mempolicy");
}

/* The writer changes word 0 of a page; the other words follow from the page's number. */
static void fill(char *start, size_t bytes)
{
    for (size_t offset = 0; offset < bytes; offset += stride) {
        uint64_t *page = (uint64_t *)(start + offset);

        for (size_t word = 1; word < PAGE / 8; word += 63)
            page[word] = (offset + 1) * 0x9e3779b97f4a7c15ull + word;
    }
}

static uint64_t checksum(void)
{
    uint64_t sum = 0;

    for (size_t offset = 0; offset < length; offset += stride) {
        const uint64_t *page = (const uint64_t *)(memory + offset);

        for (size_t word = 1; word < PAGE / 8; word += 63)
            sum = sum * 31 + page[word];
    }
    return sum;
}

static void *write_forever(void *unused)
{
    for (uint64_t round = 1;; round++)
        for (size_t offset = 0; offset < length; offset += stride) {
            *(volatile uint64_t *)(memory + offset) = round;
            if (offset / stride % 1024 == 1023)
                usleep(1000); /* an emulated machine has few processors */
        }
    return unused;
}

static void *sleep_forever(void *unused)
{
    for (;;)
        pause();
    return unused;
}

static void start_thread(void *(*function)(void *))
{
    pthread_t thread;

    errno = pthread_create(&thread, NULL, function, NULL);
    if (errno)
        die("pthread_create");
}

static void *map(size_t bytes, int flags, int file)
{
    void *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, file, 0);

    if (start == MAP_FAILED)
        die("mmap");
    return start;
}

/* Between pages without access: numa_maps tells of whole areas, and from 6.7 on a thread's stack
 * has the flags of memory without huge pages and would become one area with it. */
static void *map_alone(size_t bytes)
{
    char *start = map(bytes + 2 * PAGE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);

    if (mprotect(start, PAGE, PROT_NONE) || mprotect(start + PAGE + bytes, PAGE, PROT_NONE))
        die("mprotect");
    if (madvise(start + PAGE, bytes, MADV_NOHUGEPAGE))
        die("madvise");
    return start + PAGE;
}

static int open_sized(const char *path)
{
    int file = open(path, O_RDWR | O_CREAT, 0600);

    if (file < 0)
        die(path);
    if (lseek(file, 0, SEEK_END) < (off_t)length && ftruncate(file, (off_t)length))
        die("ftruncate");
    return file;
}

static void make(const char *kind, const char *path)
{
    if (!strcmp(kind, "huge")) {
        memory = map(length, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1);
    } else if (!strcmp(kind, "thp")) {
        char *start = map(length + HUGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

        memory = (char *)(((uintptr_t)start + HUGE - 1) / HUGE * HUGE);
        if (madvise(memory, length, MADV_HUGEPAGE))
            die("madvise");
    } else if (!strcmp(kind, "file") || !strcmp(kind, "shm")) {
        memory = map(length, MAP_SHARED, open_sized(path));
    } else if (!strcmp(kind, "reserve")) {
        memory = map_alone(1ul << 40);
        stride = (1ul << 40) / (length / PAGE) / PAGE * PAGE;
        length = 1ul << 40;
    } else {
        memory = map_alone(length);
        if (!strcmp(kind, "mlock") && mlock(memory, length))
            die("mlock");
    }
}

/* Buffers registered with io_uring are pinned until the ring is closed. */
static void pin(void)
{
    struct io_uring_params parameters = {0};
    struct iovec buffer = {.iov_base = memory, .iov_len = 16 * PAGE};
    long ring = syscall(SYS_io_uring_setup, 1u, &parameters);

    if (ring < 0)
        die("io_uring_setup");
    if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &buffer, 1u))
        die("io_uring_register");
}

static void add(unsigned long mib, int node)
{
    char *more = map(mib << 20, MAP_PRIVATE | MAP_ANONYMOUS, -1);

    bind_to(node);
    fill(more, mib << 20);
    bind_nowhere();
}

static void part(void)
{
    for (size_t offset = 0; offset < length; offset += 2 * PAGE)
        if (mprotect(memory + offset, PAGE, PROT_READ))
            die("mprotect");
}

static void set_policy(int mode, int node)
{
    unsigned long mask = 1ul << node;

    if (syscall(SYS_mbind, memory, length, mode, &mask, 65ul, 0u) ||
        syscall(SYS_set_mempolicy, mode, &mask, 65ul))
        die("mbind");
}

static void obey(const char *line)
{
    unsigned long number;
    char word[20];
    int node, mode;

    if (!strncmp(line, "sum", 3)) {
        printf("%016llx\n", (unsigned long long)checksum());
    } else if (!strncmp(line, "write", 5)) {
        start_thread(write_forever);
        puts("writing");
    } else if (sscanf(line, "threads %lu", &number) == 1) {
        while (number--)
            start_thread(sleep_forever);
        puts("threads");
    } else if (sscanf(line, "touch %lu %d", &number, &node) == 2) {
        add(number, node);
        puts("touched");
    } else if (!strncmp(line, "part", 4)) {
        part();
        puts("parted");
    } else if (!strncmp(line, "pin", 3)) {
        pin();
        puts("pinned");
    } else if (!strncmp(line, "free", 4)) {
        munmap(memory, length);
        puts("freed");
    } else if (!strncmp(line, "fork", 4)) {
        pid_t child = fork();

        if (!child) {
            prctl(PR_SET_PDEATHSIG, 9);
            sleep_forever(NULL);
        }
        printf("%d\n", child);
    } else if (!strncmp(line, "vfork", 5)) {
        if (!vfork()) {
            dprintf(1, "%d\n", getpid());
            kill(getpid(), SIGSTOP);
            execl("/bin/sleep", "sleep", "600", NULL);
            _exit(1);
        }
    } else if (sscanf(line, "policy %d %d", &mode, &node) == 2) {
        set_policy(mode, node);
        puts("set");
    } else if (sscanf(line, "home %d", &node) == 1) {
        if (syscall(SET_MEMPOLICY_HOME_NODE, memory, length, (long)node, 0ul))
            die("set_mempolicy_home_node");
        puts("set");
    } else if (!strncmp(line, "undumpable", 10)) {
        prctl(PR_SET_DUMPABLE, 0);
        puts("closed");
    } else if (!strncmp(line, "churned", 7)) {
        printf("%lu\n", churn_count());
    } else if (sscanf(line, "churn %19s %lu", word, &number) == 2) {
        bind_to(0);
        churn_start(word, number << 20);
        bind_nowhere();
        puts("churning");
    } else if (!strncmp(line, "leave", 5)) {
        start_thread(sleep_forever);
        puts("leaving");
        fflush(stdout);
        pthread_exit(NULL);
    } else {
        puts("what?");
    }
}

int main(int count, char **arguments)
{
    char line[100];

    if (count < 4)
        return 2;
    length = strtoul(arguments[2], NULL, 10) << 20;
    bind_to(atoi(arguments[3]));
    make(arguments[1], count > 4 ? arguments[4] : "");
    fill(memory, length);
    bind_nowhere();
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("ready %lx %lu\n", (unsigned long)memory, length);
    while (fgets(line, sizeof line, stdin))
        obey(line);
    return 0;
}
