/* A program with many threads, each of which waits in a system call of its own or computes, and
 * checks all that it gets. Whatever is done to its threads from outside must not show.
 *
 *     steady [PAUSE]
 *
 * PAUSE is the longest pause of a thread that others wait for, in microseconds.
 *
 * It prints `ready`, and obeys lines on its standard input: `check` answers `ok ROUNDS EARLY`, or
 * `wrong WHAT`. EARLY counts waits that ended with EINTR although no signal came. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MS 1000000L
#define MOST 200

extern char **environ;

static int longest_pause = 1000;
static atomic_ulong early;
static _Atomic(const char *) wrong;
static struct {
    const char *name;
    atomic_ulong rounds;
} kinds[MOST];
static atomic_int running;

static void expect(bool holds, const char *what)
{
    if (!holds)
        wrong = what;
}

/* Return whether a wait is over; one that ended early is counted. */
static bool over(int result, const char *what)
{
    if (result < 0 && errno == EINTR) {
        early++;
        return false;
    }
    expect(result >= 0, what);
    return true;
}

static long now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000 * MS + time.tv_nsec;
}

static struct timespec span(long ns)
{
    return (struct timespec){.tv_sec = ns / (1000 * MS), .tv_nsec = ns % (1000 * MS)};
}

/* ---- waits with a time limit ---------------------------------------------------------------- */

static void sleeps(void)
{
    struct timespec left = span(3 * MS);
    long begin = now();

    if (over(nanosleep(&left, &left), "nanosleep failed"))
        expect(now() - begin >= 3 * MS, "nanosleep was too short");
}

static void sleeps_until(void)
{
    long end = now() + 2 * MS;
    struct timespec until = span(end);
    int error = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);

    errno = error;
    if (over(error ? -1 : 0, "clock_nanosleep failed"))
        expect(now() >= end, "clock_nanosleep was too short");
}

static void polls(void)
{
    long begin = now();
    int found = poll(NULL, 0, 3);

    if (over(found, "poll failed"))
        expect(found == 0 && now() - begin >= 3 * MS, "poll was too short");
}

static void selects(void)
{
    struct timespec limit = span(2 * MS);
    int found = pselect(0, NULL, NULL, NULL, &limit, NULL);

    if (over(found, "pselect failed"))
        expect(found == 0, "pselect found something");
}

/* ---- waits for another thread --------------------------------------------------------------- */

struct pair {
    int pipe[2], event, poller, semaphores;
    uint64_t sent, received;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned long turn;
    pthread_t receiver;
    atomic_bool receiving;
};

static void pause_a_little(unsigned *seed)
{
    struct timespec left = span(rand_r(seed) % longest_pause * 1000);

    while (nanosleep(&left, &left) < 0)
        ;
}

static void reads(struct pair *pair)
{
    uint64_t number = 0;
    ssize_t size = read(pair->pipe[0], &number, sizeof number);

    expect(size == sizeof number, "read from a pipe failed");
    expect(number == pair->received++, "read from a pipe lost a number");
}

static void writes(struct pair *pair)
{
    uint64_t number = pair->sent++;

    expect(write(pair->pipe[1], &number, sizeof number) == sizeof number, "write failed");
}

static void polls_events(struct pair *pair)
{
    struct epoll_event event;
    uint64_t count = 0;

    if (over(epoll_wait(pair->poller, &event, 1, -1), "epoll_wait failed"))
        expect(read(pair->event, &count, sizeof count) == sizeof count && count,
               "no event was there");
}

static void makes_events(struct pair *pair)
{
    uint64_t one = 1;

    expect(write(pair->event, &one, sizeof one) == sizeof one, "cannot write an event");
}

static void waits_for_its_turn(struct pair *pair, unsigned long mine)
{
    pthread_mutex_lock(&pair->lock);
    while (pair->turn % 2 != mine)
        pthread_cond_wait(&pair->changed, &pair->lock);
    pair->turn++;
    pthread_cond_broadcast(&pair->changed);
    pthread_mutex_unlock(&pair->lock);
}

static void takes(struct pair *pair)
{
    struct sembuf take = {.sem_num = 0, .sem_op = -1};

    over(semop(pair->semaphores, &take, 1), "semop failed");
}

static void gives(struct pair *pair)
{
    struct sembuf give = {.sem_num = 0, .sem_op = 1};

    expect(semop(pair->semaphores, &give, 1) == 0, "semop failed");
}

/* ---- signals -------------------------------------------------------------------------------- */

static _Thread_local uint64_t expected_signal;

static void handle(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    expect((uint64_t)info->si_value.sival_ptr == expected_signal++, "a signal was lost");
}

static void queue(struct pair *pair, int number)
{
    union sigval value = {.sival_ptr = (void *)pair->sent};

    if (pair->receiving && pthread_sigqueue(pair->receiver, number, value) == 0)
        pair->sent++;
}

/* The vector registers keep their content. */
static void computes(void)
{
    double sum[8] = {0};

    for (int i = 0; i < 20000; i++)
        for (int lane = 0; lane < 8; lane++)
            sum[lane] = sum[lane] * 0.5 + (lane + 1) * (i % 7);
    static _Atomic(uint64_t) reference[8];
    for (int lane = 0; lane < 8; lane++) {
        uint64_t bits, first = 0;

        memcpy(&bits, &sum[lane], sizeof bits);
        if (!atomic_compare_exchange_strong(&reference[lane], &first, bits))
            expect(first == bits, "a computation went wrong");
    }
}

static void handles(struct pair *pair)
{
    pair->receiver = pthread_self();
    pair->receiving = true;
    computes();
}

static void waits_for_signals(struct pair *pair)
{
    siginfo_t info;
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    pair->receiver = pthread_self();
    pair->receiving = true;
    if (over(sigwaitinfo(&set, &info), "sigwaitinfo failed"))
        expect((uint64_t)info.si_value.sival_ptr == pair->received++, "sigwaitinfo lost a signal");
}

static _Thread_local volatile sig_atomic_t suspended_by;

static void note_signal(int number)
{
    suspended_by = number;
}

static void suspends(struct pair *pair)
{
    sigset_t set;

    pthread_sigmask(0, NULL, &set);
    sigdelset(&set, SIGRTMIN + 2);
    suspended_by = 0;
    pair->receiver = pthread_self();
    pair->receiving = true;
    expect(sigsuspend(&set) == -1 && errno == EINTR, "sigsuspend failed");
    expect(suspended_by == SIGRTMIN + 2, "sigsuspend ended without a signal");
}

/* ---- children ------------------------------------------------------------------------------- */

static void spawns(void)
{
    char *arguments[] = {"steady", "child", NULL};
    pid_t child = vfork();
    int status = 0;

    if (!child) {
        execve("/proc/self/exe", arguments, environ);
        _exit(1);
    }
    expect(child > 0 && waitpid(child, &status, 0) == child, "cannot wait for a child");
    expect(WIFEXITED(status) && WEXITSTATUS(status) == 7, "a child went wrong");
}

static void forks(void)
{
    pid_t child = fork();
    int status = 0;

    if (!child)
        _exit(9);
    expect(child > 0 && waitpid(child, &status, 0) == child, "cannot wait for a fork");
    expect(WIFEXITED(status) && WEXITSTATUS(status) == 9, "a fork went wrong");
}

/* ---- threads -------------------------------------------------------------------------------- */

enum signals { BLOCK_ALL, HANDLE };

struct work {
    const char *name;
    void (*alone)(void);
    void (*with)(struct pair *);
    struct pair *pair;
    enum signals signals;
    bool pauses;
};

static void *work(void *argument)
{
    struct work *mine = argument;
    int number = running++;
    unsigned seed = (unsigned)number;
    sigset_t all;

    sigfillset(&all);
    pthread_sigmask(mine->signals == HANDLE ? SIG_UNBLOCK : SIG_BLOCK, &all, NULL);
    if (mine->with == suspends) {
        sigemptyset(&all);
        sigaddset(&all, SIGRTMIN + 2);
        pthread_sigmask(SIG_BLOCK, &all, NULL);
    }
    kinds[number].name = mine->name;
    for (;;) {
        if (mine->alone)
            mine->alone();
        else
            mine->with(mine->pair);
        kinds[number].rounds++;
        if (mine->pauses)
            pause_a_little(&seed);
    }
    return NULL;
}

static void start(struct work given)
{
    pthread_attr_t attributes;
    pthread_t thread;
    struct work *mine = malloc(sizeof *mine);

    *mine = given;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 128 << 10);
    if (pthread_create(&thread, &attributes, work, mine))
        exit(3);
}

static struct pair *new_pair(void)
{
    struct pair *pair = calloc(1, sizeof *pair);
    struct epoll_event event = {.events = EPOLLIN};

    pthread_mutex_init(&pair->lock, NULL);
    pthread_cond_init(&pair->changed, NULL);
    pair->event = eventfd(0, 0);
    pair->poller = epoll_create1(0);
    pair->semaphores = semget(IPC_PRIVATE, 1, 0600);
    if (pipe(pair->pipe) || epoll_ctl(pair->poller, EPOLL_CTL_ADD, pair->event, &event))
        exit(4);
    return pair;
}

static void first_turn(struct pair *pair)
{
    waits_for_its_turn(pair, 0);
}

static void second_turn(struct pair *pair)
{
    waits_for_its_turn(pair, 1);
}

static void queue_handled(struct pair *pair)
{
    queue(pair, SIGRTMIN);
}

static void queue_awaited(struct pair *pair)
{
    queue(pair, SIGRTMIN + 1);
}

static void queue_suspended(struct pair *pair)
{
    queue(pair, SIGRTMIN + 2);
}

static int semaphores[MOST], semaphore_count;

static void start_pair(const char *name, void (*first)(struct pair *),
                       void (*second)(struct pair *))
{
    struct pair *pair = new_pair();

    semaphores[semaphore_count++] = pair->semaphores;
    start((struct work){.name = name,
                        .with = first,
                        .pair = pair,
                        .signals = first == handles || first == suspends ? HANDLE : BLOCK_ALL,
                        .pauses = first == handles});
    start((struct work){.name = name, .with = second, .pair = pair, .pauses = true});
}

static void start_all(void)
{
    start((struct work){.name = "nanosleep", .alone = sleeps});
    start((struct work){.name = "clock_nanosleep", .alone = sleeps_until});
    start((struct work){.name = "poll", .alone = polls});
    start((struct work){.name = "pselect", .alone = selects});
    start((struct work){.name = "vfork", .alone = spawns, .pauses = true});
    start((struct work){.name = "fork", .alone = forks, .pauses = true});
    start((struct work){.name = "computation", .alone = computes, .pauses = true});
    start_pair("pipe", reads, writes);
    start_pair("epoll", polls_events, makes_events);
    start_pair("futex", first_turn, second_turn);
    start_pair("semop", takes, gives);
    start_pair("handler", handles, queue_handled);
    start_pair("sigwaitinfo", waits_for_signals, queue_awaited);
    start_pair("sigsuspend", suspends, queue_suspended);
}

static void check(void)
{
    static unsigned long before[MOST];
    static bool again;
    unsigned long total = 0;

    for (int i = 0; i < running; i++) {
        unsigned long rounds = kinds[i].rounds;

        if (again && rounds == before[i] && !wrong)
            wrong = kinds[i].name; /* it hangs */
        before[i] = rounds;
        total += rounds;
    }
    again = true;
    if (wrong)
        printf("wrong %s\n", wrong);
    else
        printf("ok %lu %lu\n", total, (unsigned long)early);
}

int main(int count, char **arguments)
{
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_RESTART};
    char line[100];

    if (count > 1 && !strcmp(arguments[1], "child"))
        return 7;
    sigaction(SIGRTMIN, &action, NULL);
    action = (struct sigaction){.sa_handler = note_signal};
    sigaction(SIGRTMIN + 2, &action, NULL);
    if (count > 1)
        longest_pause = atoi(arguments[1]);
    start_all();
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin))
        if (!strcmp(line, "check\n"))
            check();
    for (int i = 0; i < semaphore_count; i++)
        semctl(semaphores[i], 0, IPC_RMID);
    _exit(0);
}
