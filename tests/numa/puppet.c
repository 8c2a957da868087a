/* A process that executes commands, one per line, and answers each with one number:
 *
 *   call NUMBER ARGUMENT...   a system call; its result, or -errno
 *   later NUMBER ARGUMENT...  the same in a thread of its own; answers 0 at once
 *   fill START BYTES PERIOD   writes pages; those PERIOD pages apart get the same content
 *   check START BYTES PERIOD  counts the pages that do not have that content
 *   read START BYTES          reads each page and adds up the contents
 *   poke ADDRESS HEX          writes bytes; their number
 *   peek ADDRESS              reads a word of 64 bits
 *   thin START BYTES          frees every other page
 *   called 0                  the address of a function that it calls before each command
 *   fork 0                    makes a child that shares all pages and only sleeps; its number
 *
 * First it prints the address of a page for arguments that are passed by address. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

struct call {
    long number, arguments[6];
};

static char scratch[PAGE] __attribute__((aligned(PAGE)));

static struct call parse(char *words)
{
    struct call call = {.number = strtol(words, &words, 0)};

    for (int i = 0; i < 6; i++)
        call.arguments[i] = (long)strtoull(words, &words, 0);
    return call;
}

static long perform(const struct call *call)
{
    const long *a = call->arguments;
    long result = syscall(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);

    return result == -1 ? -errno : result;
}

static void *perform_later(void *argument)
{
    perform(argument);
    free(argument);
    return NULL;
}

static long start(const struct call *call)
{
    struct call *copy = malloc(sizeof *copy);
    pthread_t thread;

    if (!copy)
        return -ENOMEM;
    *copy = *call;
    return -pthread_create(&thread, NULL, perform_later, copy);
}

/* Every word of a page follows from the page's number, so parts of two pages never look valid. */
static uint64_t word_of(size_t page, size_t word)
{
    return (page + 1) * 0x9e3779b97f4a7c15ull + word;
}

static long fill(uint64_t *memory, size_t bytes, size_t period)
{
    for (size_t page = 0; page < bytes / PAGE; page++)
        for (size_t word = 0; word < PAGE / 8; word++)
            memory[page * (PAGE / 8) + word] = word_of(page % period, word);
    return 0;
}

static long check(const uint64_t *memory, size_t bytes, size_t period)
{
    long wrong = 0;

    for (size_t page = 0; page < bytes / PAGE; page++)
        for (size_t word = 0; word < PAGE / 8; word++)
            if (memory[page * (PAGE / 8) + word] != word_of(page % period, word)) {
                wrong++;
                break;
            }
    return wrong;
}

static long read_all(const volatile unsigned char *memory, size_t bytes)
{
    long sum = 0;

    for (size_t offset = 0; offset < bytes; offset += PAGE)
        sum += memory[offset];
    return sum;
}

static long thin(char *memory, size_t bytes)
{
    for (size_t offset = 0; offset < bytes; offset += 2 * PAGE)
        if (madvise(memory + offset, PAGE, MADV_DONTNEED))
            return -errno;
    return 0;
}

static long fork_sleeper(void)
{
    pid_t child = fork();

    if (child)
        return child;
    prctl(PR_SET_PDEATHSIG, 9);
    for (;;)
        pause();
}

static long poke(unsigned char *memory, const char *hex)
{
    unsigned byte;
    long count = 0;

    for (hex += strspn(hex, " "); sscanf(hex, "%2x", &byte) == 1; hex += 2)
        memory[count++] = (unsigned char)byte;
    return count;
}

static long obey(char *line)
{
    char *words = strchr(line, ' ');
    struct call call;

    if (!words)
        return -EINVAL;
    *words++ = 0;
    if (!strcmp(line, "poke")) {
        unsigned char *memory = (unsigned char *)strtoull(words, &words, 0);

        return poke(memory, words);
    }
    call = parse(words);
    if (!strcmp(line, "call"))
        return perform(&call);
    if (!strcmp(line, "later"))
        return start(&call);
    if (!strcmp(line, "fill"))
        return fill((uint64_t *)call.number, (size_t)call.arguments[0], (size_t)call.arguments[1]);
    if (!strcmp(line, "check"))
        return check((uint64_t *)call.number, (size_t)call.arguments[0], (size_t)call.arguments[1]);
    if (!strcmp(line, "read"))
        return read_all((unsigned char *)call.number, (size_t)call.arguments[0]);
    if (!strcmp(line, "thin"))
        return thin((char *)call.number, (size_t)call.arguments[0]);
    if (!strcmp(line, "fork"))
        return fork_sleeper();
    if (!strcmp(line, "called"))
        return (long)fgets;
    if (!strcmp(line, "peek"))
        return *(long *)call.number;
    return -EINVAL;
}

int main(void)
{
    static char line[4 * PAGE];

    setvbuf(stdout, NULL, _IOLBF, 0);
    memset(scratch, 1, PAGE); /* on this process's own node, before a test counts */
    printf("%lu\n", (unsigned long)scratch);
    while (fgets(line, sizeof line, stdin))
        printf("%ld\n", obey(line));
    return 0;
}
