/* Programs in states that make it hard, or wrong, to run a system call in them.
 *
 *     awkward STATE
 *
 * Once it is in that state it prints `ready`; each line on its standard input is then answered with
 * `fine`, or with what was found changed. */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

extern char **environ;

/* Without a buffer, for which the C library would use the stack. */
static void say(const char *word)
{
    if (write(1, word, strlen(word)) < 0 || write(1, "\n", 1) < 0)
        _exit(1);
}

static void answer(const char *found)
{
    char line[16];

    while (read(0, line, sizeof line) > 0)
        say(found);
    _exit(0);
}

static void answer_fine(void)
{
    say("ready");
    answer("fine");
}

/* A filter that kills for the system calls of memory policies, as a container's may. */
static void filter(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, SYS_mbind, 0, 2),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, SYS_get_mempolicy, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, 2, &program))
        _exit(1);
    answer_fine();
}

/* The parent waits in the kernel until the child, which has its memory, runs a program. */
static void wait_in_vfork(void)
{
    char line[16];
    pid_t child = vfork();

    if (!child) {
        say("ready");
        while (read(0, line, sizeof line) > 0)
            say("fine");
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

static void *answer_in_thread(void *ignored)
{
    (void)ignored;
    answer_fine();
    return NULL;
}

static void leave_first_thread(void)
{
    pthread_t thread;

    pthread_create(&thread, NULL, answer_in_thread, NULL);
    pthread_exit(NULL);
}

/* ---- stacks --------------------------------------------------------------------------------- */

#define STACK_SIZE (64 << 10)
#define OWN 4096
#define GUARD 0x5a

static unsigned char small_stack[STACK_SIZE];
static ucontext_t first, second;

static void answer_on_small_stack(void)
{
    unsigned char *here = __builtin_frame_address(0), line[16];

    /* What is below belongs to others, but for a little that the calls here need. */
    memset(small_stack, GUARD, (size_t)(here - small_stack) - OWN);
    say("ready");
    while (read(0, line, sizeof line) > 0) {
        const char *found = "fine";

        for (unsigned char *byte = small_stack; byte < here - OWN; byte++)
            if (*byte != GUARD)
                found = "memory below the stack was changed";
        say(found);
    }
    _exit(0);
}

/* As coroutines do, and Go: the first thread runs on memory of the heap. */
static void run_on_small_stack(void)
{
    getcontext(&second);
    second.uc_stack.ss_sp = small_stack;
    second.uc_stack.ss_size = STACK_SIZE;
    makecontext(&second, answer_on_small_stack, 0);
    swapcontext(&first, &second);
}

static uintptr_t stack_start(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[200];
    uintptr_t start = 0;

    while (fgets(line, sizeof line, maps))
        if (strstr(line, "[stack]"))
            start = strtoul(line, NULL, 16);
    fclose(maps);
    return start;
}

/* Go down to the first page of the stack's mapping, which the kernel could still let grow. */
static void fill_stack(void)
{
    uintptr_t start = stack_start();
    volatile char *deep = __builtin_alloca((uintptr_t)__builtin_frame_address(0) - start - 512);

    deep[0] = 1;
    say("ready");
    answer("fine");
}

/* ---- registers ------------------------------------------------------------------------------ */

static volatile int answers_wanted, answers_given;

static void *count_lines(void *ignored)
{
    char line[16];

    (void)ignored;
    say("ready");
    while (read(0, line, sizeof line) > 0) {
        int given = answers_given;

        answers_wanted++;
        while (answers_given == given)
            usleep(1000);
    }
    _exit(0);
}

/* Run in one loop with known values in wide registers. */
__attribute__((target("avx2"))) static int keeps_wide_registers(int wanted)
{
    uint64_t before[4] = {1, 22, 333, 4444}, after[2][4];

    __asm__ volatile("vmovdqu %2, %%ymm7\n\t"
                     "vmovdqu %2, %%ymm15\n"
                     "1:\n\t"
                     "cmp %3, %4\n\t"
                     "jne 1b\n\t"
                     "vmovdqu %%ymm7, %0\n\t"
                     "vmovdqu %%ymm15, %1"
                     : "=m"(after[0]), "=m"(after[1])
                     : "m"(before), "r"(wanted), "m"(answers_wanted)
                     : "xmm7", "xmm15", "cc", "memory");
    return !memcmp(before, after[0], sizeof before) && !memcmp(before, after[1], sizeof before);
}

static void use_wide_registers(void)
{
    pthread_t thread;

    if (!__builtin_cpu_supports("avx2"))
        answer_fine();
    pthread_create(&thread, NULL, count_lines, NULL);
    for (int wanted = 1;; wanted++) {
        say(keeps_wide_registers(wanted) ? "fine" : "registers were changed");
        answers_given++;
    }
}

static void ignore(int number)
{
    (void)number;
}

/* Run step by step, with a signal after each instruction. */
static void run_in_steps(void)
{
    pthread_t thread;

    signal(SIGTRAP, ignore);
    pthread_create(&thread, NULL, answer_in_thread, NULL);
#ifdef __x86_64__
    __asm__ volatile("sub $128, %%rsp\n\t"
                     "pushfq\n\t"
                     "orq $0x100, (%%rsp)\n\t"
                     "popfq\n\t"
                     "add $128, %%rsp" ::
                         : "cc", "memory");
#endif
    for (volatile int step = 0;; step = !step)
        ;
}

/* ---- limits --------------------------------------------------------------------------------- */

static void limit(int what, rlim_t size)
{
    struct rlimit limit = {.rlim_cur = size, .rlim_max = size};

    if (setrlimit((__rlimit_resource_t)what, &limit))
        _exit(1);
    answer_fine();
}

static void limit_memory(void)
{
    limit(RLIMIT_AS, 0);
}

/* ---- programs and threads that come and go --------------------------------------------------- */

static void run_again(const char *count)
{
    char text[20];
    char *arguments[] = {"awkward", "exec", text, NULL};
    int left = atoi(count);

    if (left <= 0) {
        answer("fine");
        return;
    }
    snprintf(text, sizeof text, "%d", left - 1);
    execve("/proc/self/exe", arguments, environ);
    _exit(1);
}

static void *end_at_once(void *sum)
{
    return (char *)sum + 1;
}

static void *start_threads(void *ignored)
{
    (void)ignored;
    for (uintptr_t i = 0;; i++) {
        pthread_t thread;
        void *sum;

        if (pthread_create(&thread, NULL, end_at_once, (void *)i) || pthread_join(thread, &sum) ||
            sum != (void *)(i + 1)) {
            say("a thread went wrong");
            _exit(1);
        }
    }
}

static void churn(void)
{
    pthread_t thread;

    pthread_create(&thread, NULL, start_threads, NULL);
    answer_fine();
}

int main(int count, char **arguments)
{
    static const struct {
        const char *name;
        void (*enter)(void);
    } states[] = {
        {"filter", filter},
        {"vfork", wait_in_vfork},
        {"leave", leave_first_thread},
        {"coroutine", run_on_small_stack},
        {"full", fill_stack},
        {"limit", limit_memory},
        {"churn", churn},
        {"plain", answer_fine},
        {"registers", use_wide_registers},
        {"steps", run_in_steps},
    };

    if (count > 2)
        run_again(arguments[2]);
    if (count > 1 && !strcmp(arguments[1], "exec")) {
        say("ready");
        run_again("200");
    }
    for (size_t i = 0; count > 1 && i < sizeof states / sizeof *states; i++)
        if (!strcmp(arguments[1], states[i].name))
            states[i].enter();
    return 2;
}
