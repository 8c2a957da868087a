/* A thread that keeps changing its process's memory in one way: unmap, dontneed, remap, protect,
 * truncate, fork or threads. See job.c. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PIECE (64 * PAGE)

void churn_start(const char *kind, size_t bytes);
unsigned long churn_count(void);

static char *memory;
static size_t length;
static int file = -1;
static atomic_ulong count;

static void check(int good, const char *what)
{
    if (!good) {
        perror(what);
        abort();
    }
}

/* Check that what was written is still there, whatever happened to the pages. */
static void fill(char *start, size_t bytes)
{
    for (char *page = start; page < start + bytes; page += PAGE)
        *(size_t *)page = (size_t)(page - memory) + 1;
}

static void verify(const char *start, size_t bytes)
{
    for (const char *page = start; page < start + bytes; page += PAGE)
        check(*(const size_t *)page == (size_t)(page - memory) + 1, "churn: lost a page");
}

static void map_at(char *place, int flags)
{
    void *found = mmap(place, PIECE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | flags, -1, 0);

    check(found == place, "mmap");
}

static void unmap(char *piece)
{
    check(!munmap(piece, PIECE), "munmap");
    map_at(piece, MAP_FIXED_NOREPLACE);
}

static void dontneed(char *piece)
{
    check(!madvise(piece, PIECE, MADV_DONTNEED), "madvise");
}

/* Remap to another address and back; the pages move with the mapping. */
static void remap(char *piece)
{
    char *away = mremap(piece, PIECE, PIECE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);

    check(away != MAP_FAILED, "mremap");
    check(mremap(away, PIECE, PIECE, MREMAP_MAYMOVE | MREMAP_FIXED, piece) == piece, "mremap");
}

static void protect(char *piece)
{
    check(!mprotect(piece, PIECE, PROT_NONE), "mprotect");
    usleep(200);
    check(!mprotect(piece, PIECE, PROT_READ | PROT_WRITE), "mprotect");
}

static void truncate_file(char *piece)
{
    check(!ftruncate(file, piece - memory), "ftruncate");
    check(!ftruncate(file, (off_t)length), "ftruncate");
    fill(memory, length);
}

static void fork_child(char *piece)
{
    pid_t child = fork();

    if (!child) {
        fill(piece, PIECE); /* from here on its own copies */
        _exit(0);
    }
    check(child > 0 && waitpid(child, NULL, 0) == child, "fork");
}

static void *end_at_once(void *unused)
{
    return unused;
}

static void start_thread(char *unused)
{
    pthread_t thread;

    (void)unused;
    check(!pthread_create(&thread, NULL, end_at_once, NULL), "pthread_create");
    check(!pthread_join(thread, NULL), "pthread_join");
}

static const struct {
    const char *name;
    void (*act)(char *piece);
    int keeps; /* the pages' contents */
} kinds[] = {
    {"unmap", unmap, 0},          {"dontneed", dontneed, 0},      {"remap", remap, 1},
    {"protect", protect, 1},      {"truncate", truncate_file, 1}, {"fork", fork_child, 1},
    {"threads", start_thread, 1},
};

static void *churn(void *given)
{
    size_t kind = (size_t)given;

    /* Allocate on the node where it runs, not on the node to which its creator is bound. */
    check(!syscall(SYS_set_mempolicy, 0, NULL, 0ul), "set_mempolicy");
    for (;; count++) {
        char *piece = memory + count * PIECE % length;

        kinds[kind].act(piece);
        if (kinds[kind].keeps)
            verify(piece, PIECE);
        else
            fill(piece, PIECE);
        usleep(300); /* an emulated machine has few processors */
    }
    return NULL;
}

unsigned long churn_count(void)
{
    return count;
}

/* The caller's thread fills the memory, on the nodes of its policy. */
void churn_start(const char *kind, size_t bytes)
{
    pthread_t thread;
    size_t index = 0;

    while (strcmp(kinds[index].name, kind))
        check(++index < sizeof kinds / sizeof *kinds, kind);
    length = bytes;
    if (kinds[index].act == truncate_file) {
        file = memfd_create("churn", 0);
        check(file >= 0 && !ftruncate(file, (off_t)length), "memfd_create");
    }
    memory = mmap(NULL, length, PROT_READ | PROT_WRITE,
                  file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, file, 0);
    check(memory != MAP_FAILED, "mmap");
    fill(memory, length);
    check(!pthread_create(&thread, NULL, churn, (void *)index), "pthread_create");
}
