/* A program whose first thread waits without a time limit, in a call that the kernel does not make
 * again after a stop; signal(7).
 *
 *     waiting CALL
 *
 * It prints `ready`, and answers each line on its standard input with how often the wait has ended
 * and how many signals SIGUSR1 were handled. */
#define _GNU_SOURCE
#include <linux/io_uring.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

static atomic_int ended, handled;
static bool unavailable; /* here, as io_uring is in containers */

static void handle(int number)
{
    (void)number;
    handled++;
}

static void *answer(void *ignored)
{
    char line[16];

    (void)ignored;
    while (read(0, line, sizeof line) > 0) {
        if (unavailable)
            puts("unavailable");
        else
            printf("%d %d\n", ended, handled);
        fflush(stdout);
    }
    _exit(0);
}

static void start_answers(void)
{
    pthread_t thread;
    sigset_t signals;

    signal(SIGUSR1, handle);
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    pthread_create(&thread, NULL, answer, NULL);
    sigprocmask(SIG_UNBLOCK, &signals, NULL);
}

int main(int count, char **arguments)
{
    struct io_uring_params parameters = {0};
    struct epoll_event event;
    const char *call = count > 1 ? arguments[1] : "";
    int poller = epoll_create1(0), ring = -1;

    if (!strcmp(call, "io_uring_enter")) {
        ring = (int)syscall(SYS_io_uring_setup, 1, &parameters);
        unavailable = ring < 0;
    }
    start_answers();
    puts("ready");
    fflush(stdout);
    for (;; ended++) {
        if (ring >= 0)
            syscall(SYS_io_uring_enter, ring, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
        else if (!strcmp(call, "epoll_pwait2"))
            syscall(SYS_epoll_pwait2, poller, &event, 1, NULL, NULL, 0);
        else
            epoll_wait(poller, &event, 1, -1);
    }
}
