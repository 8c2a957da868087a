/* A program whose threads and areas have memory policies; it shows where new memory comes from.
 *
 * It prints `ready` and then reads commands, one per line. THREAD is 0 for the first thread; MODE
 * and MASK are those of set_mempolicy(2), in decimal:
 *
 *   thread                    start a thread; prints its number and thread id
 *   set THREAD MODE MASK      set its policy; prints `set`
 *   get THREAD                print its policy as MODE MASK, as get_mempolicy(2) returns it
 *   take THREAD MIB           let it allocate and touch memory; prints the address
 *   area MODE MASK MIB        map an area with a policy of its own, mbind(2), without touching it;
 *                             prints the address
 *   touch ADDRESS MIB         touch memory from the address on; prints `touched` */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MOST_THREADS 500
#define WORDS 16 /* of a mask that is large enough for every kernel */

enum { SET, GET, TAKE };

struct order {
    int what;
    long mode;
    unsigned long mask;
    size_t bytes;
};

struct answer {
    long value;
    unsigned long mask;
};

static struct {
    int ends[2]; /* of a socket: the first thread's and its own */
    long tid;
} threads[MOST_THREADS];

static void die(const char *what)
{
    fprintf(stderr, "policies: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* A page without access on either side keeps the kernel from merging it with other areas. */
static char *map(size_t bytes)
{
    char *start = mmap(NULL, bytes + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (start == MAP_FAILED || mprotect(start + PAGE, bytes, PROT_READ | PROT_WRITE) ||
        madvise(start + PAGE, bytes, MADV_NOHUGEPAGE))
        die("mmap");
    return start + PAGE;
}

static void touch(char *start, size_t bytes)
{
    for (size_t offset = 0; offset < bytes; offset += PAGE)
        start[offset] = 1;
}

static struct answer carry_out(struct order order)
{
    unsigned long mask[WORDS] = {order.mask};
    struct answer answer = {0, 0};
    int mode = 0;

    if (order.what == SET) {
        if (syscall(SYS_set_mempolicy, (int)order.mode, mask, 64ul * WORDS + 1))
            die("set_mempolicy");
    } else if (order.what == GET) {
        if (syscall(SYS_get_mempolicy, &mode, mask, 64ul * WORDS + 1, NULL, 0ul))
            die("get_mempolicy");
        answer.value = mode;
        answer.mask = mask[0];
    } else {
        char *start = map(order.bytes);

        touch(start, order.bytes);
        answer.value = (long)start;
    }
    return answer;
}

static void *obey(void *number)
{
    size_t own = (size_t)number;
    struct order order;

    threads[own].tid = syscall(SYS_gettid);
    for (;;) {
        struct answer answer = {threads[own].tid, 0};

        if (write(threads[own].ends[1], &answer, sizeof answer) != sizeof answer ||
            read(threads[own].ends[1], &order, sizeof order) != sizeof order)
            return NULL;
        answer = carry_out(order);
        if (write(threads[own].ends[1], &answer, sizeof answer) != sizeof answer)
            return NULL;
    }
}

static struct answer await(size_t number)
{
    struct answer answer;

    if (read(threads[number].ends[0], &answer, sizeof answer) != sizeof answer)
        die("read");
    return answer;
}

static struct answer ask(size_t number, struct order order)
{
    struct answer answer;

    if (!number)
        return carry_out(order);
    if (write(threads[number].ends[0], &order, sizeof order) != sizeof order)
        die("write");
    answer = await(number);
    await(number); /* it is idle again */
    return answer;
}

static void start_thread(size_t number)
{
    pthread_attr_t attributes;
    pthread_t thread;

    if (number >= MOST_THREADS || socketpair(AF_UNIX, SOCK_STREAM, 0, threads[number].ends))
        die("socketpair");
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 << 10);
    errno = pthread_create(&thread, &attributes, obey, (void *)number);
    if (errno)
        die("pthread_create");
    printf("%zu %ld\n", number, await(number).value);
}

int main(void)
{
    char line[100];
    size_t number, count = 1, mib;
    unsigned long mask, address;
    long mode;

    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (!strncmp(line, "thread", 6)) {
            start_thread(count++);
        } else if (sscanf(line, "set %zu %ld %lu", &number, &mode, &mask) == 3) {
            ask(number, (struct order){SET, mode, mask, 0});
            puts("set");
        } else if (sscanf(line, "get %zu", &number) == 1) {
            struct answer answer = ask(number, (struct order){GET, 0, 0, 0});

            printf("%ld %lu\n", answer.value, answer.mask);
        } else if (sscanf(line, "take %zu %zu", &number, &mib) == 2) {
            printf("%lx\n", ask(number, (struct order){TAKE, 0, 0, mib << 20}).value);
        } else if (sscanf(line, "area %ld %lu %zu", &mode, &mask, &mib) == 3) {
            char *start = map(mib << 20);

            if (syscall(SYS_mbind, start, mib << 20, (int)mode, &mask, 65ul, 0u))
                die("mbind");
            printf("%lx\n", (unsigned long)start);
        } else if (sscanf(line, "touch %lx %zu", &address, &mib) == 2) {
            touch((char *)address, mib << 20);
            puts("touched");
        } else {
            puts("what?");
        }
    }
    return 0;
}
