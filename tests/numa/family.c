/* A parent and its children that share memory, and the check of what each of them sees.
 *
 *   family KIND MIB NODE CHILDREN [PATH]
 *
 * The parent fills MIB on NODE and forks CHILDREN, which keep the memory. KIND: anon, thp, huge
 * (private, of a pool), memfd, views (a memfd that each process maps three times), sysv, file
 * (PATH, shared), private (PATH, private). It prints `ready START BYTES` and then reads commands,
 * one per line: `break PERCENT` lets each child write to so many of its pages, spread over all, on
 * NODE; in private memory it gets copies of its own. `check` prints `ok` if each process finds in
 * each page what it must. If not, or if a child has ended, a command prints `bad` and who it is. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mman.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#include "pages.h"

#define MPOL_DEFAULT 0
#define MPOL_BIND 2
#define VIEWS 3
#define MOST 64

static char *view[VIEWS];
static size_t views = 1, length;
static int home;
static uint64_t me; /* 0: the parent */
static unsigned long broken;
static int is_private = 1;

static void die(const char *what)
{
    fprintf(stderr, "family: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void bind_to(int node)
{
    unsigned long mask = node < 0 ? 0 : 1ul << node;

    if (syscall(SYS_set_mempolicy, node < 0 ? MPOL_DEFAULT : MPOL_BIND, node < 0 ? NULL : &mask,
                node < 0 ? 0ul : 65ul))
        die("set_mempolicy");
}

static int is_broken(size_t page)
{
    return page * broken % 100 < broken;
}

static uint64_t content(uint64_t owner, size_t page)
{
    return (page + 1) * 0x9e3779b97f4a7c15ull + owner;
}

static void write_page(size_t page, uint64_t owner)
{
    *(volatile uint64_t *)(view[0] + page * PAGE) = content(is_private ? owner : 0, page);
}

static int check(void)
{
    for (size_t i = 0; i < views; i++)
        for (size_t page = 0; page < length / PAGE; page++) {
            uint64_t owner = me && is_private && is_broken(page) ? me : 0;

            if (*(volatile uint64_t *)(view[i] + page * PAGE) != content(owner, page))
                return 0;
        }
    return 1;
}

static void *map(int flags, int file, size_t bytes)
{
    void *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, file, 0);

    if (start == MAP_FAILED)
        die("mmap");
    return start;
}

static int sized(int file)
{
    if (file < 0 || ftruncate(file, (off_t)length))
        die("file");
    return file;
}

/* A private mapping shows what the file has; so the file gets the content first. */
static void fill_file(int file)
{
    uint64_t page[PAGE / 8] = {0};

    for (size_t i = 0; i < length / PAGE; i++) {
        page[0] = content(0, i);
        if (pwrite(file, page, PAGE, (off_t)(i * PAGE)) != (ssize_t)PAGE)
            die("pwrite");
    }
}

static void make(const char *kind, const char *path)
{
    if (!strcmp(kind, "sysv")) {
        int segment = shmget(IPC_PRIVATE, length, IPC_CREAT | 0600);

        view[0] = segment < 0 ? (void *)-1 : shmat(segment, NULL, 0);
        if (view[0] == (void *)-1 || shmctl(segment, IPC_RMID, NULL))
            die("shmget");
        is_private = 0;
    } else if (!strcmp(kind, "memfd") || !strcmp(kind, "views")) {
        int file = sized(memfd_create("family", 0));

        views = !strcmp(kind, "views") ? VIEWS : 1;
        for (size_t i = 0; i < views; i++)
            view[i] = map(MAP_SHARED, file, length);
        is_private = 0;
    } else if (!strcmp(kind, "file")) {
        view[0] = map(MAP_SHARED, sized(open(path, O_RDWR | O_CREAT, 0600)), length);
        is_private = 0;
    } else if (!strcmp(kind, "private") || !strcmp(kind, "copied")) {
        int file = sized(open(path, O_RDWR | O_CREAT, 0600));

        fill_file(file);
        view[0] = map(MAP_PRIVATE, file, length);
    } else if (!strcmp(kind, "huge")) {
        view[0] = map(MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB, -1, length);
    } else {
        char *start = map(MAP_PRIVATE | MAP_ANONYMOUS, -1, length + HUGE);

        view[0] = (char *)(((uintptr_t)start + HUGE - 1) / HUGE * HUGE);
        if (madvise(view[0], length, strcmp(kind, "thp") ? MADV_NOHUGEPAGE : MADV_HUGEPAGE))
            die("madvise");
    }
}

/* Touch every page through every view: a private mapping of a file keeps the file's pages. */
static void touch(const char *kind)
{
    for (size_t page = 0; page < length / PAGE; page++)
        if (strcmp(kind, "private"))
            write_page(page, 0);
    if (!check())
        die("fill");
}

static char obey(char command, unsigned long number)
{
    if (command == 'c')
        return check() ? 'y' : 'n';
    broken = number;
    bind_to(home);
    for (size_t page = 0; page < length / PAGE; page++)
        if (is_broken(page))
            write_page(page, me);
    bind_to(-1);
    return 'y';
}

struct order {
    unsigned long number;
    char command;
};

static pid_t pid_of[MOST];

static int start_child(uint64_t number)
{
    int ends[2];
    struct order order;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends))
        die("socketpair");
    switch (pid_of[number - 1] = fork()) {
    case -1:
        die("fork");
    case 0:
        break;
    default:
        close(ends[1]);
        return ends[0];
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(ends[0]);
    me = number;
    if (!check())
        exit(1);
    while (read(ends[1], &order, sizeof order) == sizeof order) {
        char answer = obey(order.command, order.number);

        if (write(ends[1], &answer, 1) != 1)
            break;
    }
    exit(0);
}

int main(int count, char **words)
{
    int child[MOST], children;
    char line[64];

    if (count < 5)
        return 2;
    length = strtoul(words[2], NULL, 10) << 20;
    home = atoi(words[3]);
    children = atoi(words[4]);
    bind_to(home);
    make(words[1], count > 5 ? words[5] : "");
    touch(words[1]);
    bind_to(-1);
    for (int i = 0; i < children && i < MOST; i++)
        child[i] = start_child((uint64_t)i + 1);
    printf("ready %lx %zu\n", (unsigned long)view[0], length);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        struct order order = {.command = line[0]};
        int bad = 0;

        sscanf(line, "break %lu", &order.number);
        for (int i = 0; i < children; i++) {
            char answer = 0;
            int status;

            if (write(child[i], &order, sizeof order) == sizeof order &&
                read(child[i], &answer, 1) == 1 && answer == 'y')
                continue;
            if (bad++)
                continue;
            if (!answer && waitpid(pid_of[i], &status, 0) == pid_of[i])
                printf("bad: child %d of %d has ended with status %#x\n", i, children, status);
            else
                printf("bad: child %d of %d finds what it has not written\n", i, children);
        }
        if (!bad)
            puts(check() ? "ok" : "bad: the parent finds what it has not written");
        fflush(stdout);
    }
    return 0;
}
