/* A job whose accesses can be recorded without hardware counters: each causes a page fault.
 *
 *   profiled PAGES
 *
 * Maps shared memory on node 0, prints `ready START` and reads commands. `round`: the first thread,
 * on a processor of node 0, writes to even pages, and a thread on a processor of node 1 to odd
 * pages; both write to every 64th page. Each first drops the page from the page tables, which
 * leaves it in memory. `nodes`: prints the node of each page, one digit per page. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lab.h"

#define MPOL_BIND 2

static volatile char *memory;
static size_t pages;
static pthread_barrier_t begin, end;

static void use(size_t parity)
{
    for (size_t i = 0; i < pages; i++) {
        if (i % 2 != parity && i % 64 != 63)
            continue;
        if (madvise((char *)memory + i * PAGE, PAGE, MADV_DONTNEED))
            die("madvise");
        memory[i * PAGE]++;
    }
}

static void *use_from_node_1(void *unused)
{
    run_on(1);
    for (;;) {
        pthread_barrier_wait(&begin);
        use(1);
        pthread_barrier_wait(&end);
    }
    return unused;
}

static void print_nodes(void)
{
    for (size_t i = 0; i < pages; i++) {
        void *page = (char *)memory + i * PAGE;
        int status = -1;

        if (syscall(SYS_move_pages, 0, 1ul, &page, NULL, &status, 0))
            die("move_pages");
        putchar(status < 0 ? '-' : '0' + status);
    }
    putchar('\n');
}

int main(int count, char **arguments)
{
    unsigned long mask = 1;
    pthread_t thread;
    char line[100];
    int file;

    if (count != 2)
        return 2;
    pages = strtoul(arguments[1], NULL, 10);
    run_on(0);
    file = memfd_create("profiled", 0);
    if (file < 0 || ftruncate(file, (off_t)(pages * PAGE)))
        die("memfd");
    memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED)
        die("mmap");
    if (syscall(SYS_set_mempolicy, MPOL_BIND, &mask, 65ul))
        die("set_mempolicy");
    memset((char *)memory, 1, pages * PAGE);
    if (syscall(SYS_set_mempolicy, 0, NULL, 0ul))
        die("set_mempolicy");
    pthread_barrier_init(&begin, NULL, 2);
    pthread_barrier_init(&end, NULL, 2);
    if (pthread_create(&thread, NULL, use_from_node_1, NULL))
        die("pthread_create");
    setvbuf(stdout, NULL, _IOLBF, 1 << 16);
    printf("ready %lx\n", (unsigned long)memory);
    while (fgets(line, sizeof line, stdin)) {
        if (!strncmp(line, "round", 5)) {
            use(0);
            pthread_barrier_wait(&begin);
            pthread_barrier_wait(&end);
            puts("done");
        } else if (!strncmp(line, "nodes", 5)) {
            print_nodes();
        }
    }
    return 0;
}
