/* Stop a thread and run it from stop to stop. */
#include "remote.h"
#include "engine.h"
#include "tracing.h"

#include <elf.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

/* <linux/ptrace.h>, which does not go together with <sys/ptrace.h> */
#define SH_EVENT_STOP 128
#define SH_GETSIGMASK 0x420a
#define SH_SETSIGMASK 0x420b

#define SYSCALL_STOP (SIGTRAP | 0x80) /* by PTRACE_O_TRACESYSGOOD */
#define ALL_SIGNALS (~(uint64_t)0)

#define YIELDS 20
#define FIRST_PAUSE_NS 20000
#define LONGEST_PAUSE_NS 1000000

enum stop { AT_EVENT, AT_SYSCALL };

int sh_trace(int request, pid_t tid, uint64_t address, const void *data)
{
    return ptrace(request, tid, address, data) == -1 ? errno : 0;
}

int sh_get_registers(pid_t tid, int kind, void *registers, uint64_t *size)
{
    struct iovec part = {.iov_base = registers, .iov_len = *size};
    int error = sh_trace(PTRACE_GETREGSET, tid, (uint64_t)kind, &part);

    *size = part.iov_len;
    return error;
}

int sh_set_registers(pid_t tid, int kind, const void *registers, uint64_t size)
{
    struct iovec part = {.iov_base = (void *)registers, .iov_len = size};

    return sh_trace(PTRACE_SETREGSET, tid, (uint64_t)kind, &part);
}

static int set_blocked(pid_t tid, uint64_t signals)
{
    return sh_trace(SH_SETSIGMASK, tid, sizeof signals, &signals);
}

/* Wait for the thread's next stop. A wait that blocks would have no time limit. */
static int next_stop(pid_t tid, uint64_t end_ns, int *status)
{
    struct timespec pause = {.tv_nsec = FIRST_PAUSE_NS};

    for (unsigned polls = 0;; polls++) {
        pid_t found = waitpid(tid, status, __WALL | __WNOTHREAD | WNOHANG);

        if (found == tid)
            return WIFSTOPPED(*status) ? 0 : ESRCH;
        if (found < 0 && errno != EINTR)
            return ESRCH;
        if (sh_now_ns() >= end_ns)
            return ETIMEDOUT;
        if (polls < YIELDS) {
            sched_yield();
        } else {
            nanosleep(&pause, NULL);
            if (pause.tv_nsec < LONGEST_PAUSE_NS)
                pause.tv_nsec *= 2;
        }
    }
}

static bool is_fault(int number)
{
    return number == SIGSEGV || number == SIGBUS || number == SIGILL || number == SIGFPE ||
           number == SIGTRAP || number == SIGSYS;
}

/* Wait for a stop of the wanted kind; let the thread run on by `request` after any other. */
static int wait_for(enum stop wanted, int request, pid_t tid, uint64_t wait_ns)
{
    uint64_t end_ns = sh_now_ns() + wait_ns;

    for (;;) {
        int status, error = next_stop(tid, end_ns, &status);

        if (error)
            return error;
        bool at_event = status >> 16 == SH_EVENT_STOP; /* PTRACE_INTERRUPT, or a group-stop */
        if (wanted == AT_EVENT ? at_event : WSTOPSIG(status) == SYSCALL_STOP)
            return 0;
        /* A signal that came before all were blocked, or SIGSTOP, which cannot be: deliver it. */
        int number = at_event ? 0 : WSTOPSIG(status);
        if (wanted == AT_SYSCALL && is_fault(number))
            return EPROTO;
        error = sh_trace(request, tid, 0, (const void *)(uintptr_t)number);
        if (error)
            return error;
    }
}

static int run_until(enum stop wanted, int request, pid_t tid, uint64_t wait_ns)
{
    int error = sh_trace(request, tid, 0, NULL);

    return error ? error : wait_for(wanted, request, tid, wait_ns);
}

int sh_remote_stop(pid_t tid, uint64_t wait_ns, struct sh_remote *remote)
{
    uintptr_t options = PTRACE_O_TRACESYSGOOD; /* not EXITKILL: the thread outlives its tracer */
    int error = sh_trace(PTRACE_SEIZE, tid, 0, (const void *)options);

    if (!error)
        error = sh_trace(PTRACE_INTERRUPT, tid, 0, NULL);
    if (!error)
        error = wait_for(AT_EVENT, PTRACE_CONT, tid, wait_ns);
    if (!error)
        error = sh_trace(SH_GETSIGMASK, tid, sizeof remote->blocked, &remote->blocked);
    return error ? error : sh_read_thread(tid, remote);
}

int sh_remote_write(pid_t tid, uint64_t address, const uint64_t *words, size_t count)
{
    int error = 0;

    for (size_t i = 0; !error && i < count; i++)
        error = sh_trace(PTRACE_POKEDATA, tid, address + i * sizeof *words,
                         (const void *)(uintptr_t)words[i]);
    return error;
}

int sh_remote_enter(pid_t tid, const struct sh_remote *remote, uint64_t restorer, uint64_t frame)
{
    int error = sh_send_to(tid, remote, restorer, frame);

    /* Only now, so that the frame undoes it if the tracer is killed. A handler that runs before
     * uses the stack below the frame, and returns to the restorer. */
    return error ? error : set_blocked(tid, ALL_SIGNALS);
}

int sh_remote_make(pid_t tid, uint64_t restorer, const struct sh_remote_call *call,
                   uint64_t wait_ns, int64_t *result)
{
    int error = run_until(AT_SYSCALL, PTRACE_SYSCALL, tid, wait_ns);

    if (!error)
        error = sh_replace_call(tid, restorer, call);
    if (!error)
        error = run_until(AT_SYSCALL, PTRACE_SYSCALL, tid, wait_ns);
    return error ? error : sh_read_result(tid, restorer, result);
}

int sh_remote_leave(pid_t tid, const struct sh_remote *remote, uint64_t wait_ns)
{
    /* After a stop of this kind the kernel makes an interrupted system call again; after that of a
     * system call it does not. The thread runs nothing before it. */
    int error = sh_trace(PTRACE_INTERRUPT, tid, 0, NULL);

    if (!error)
        error = run_until(AT_EVENT, PTRACE_CONT, tid, wait_ns);
    if (!error)
        error = set_blocked(tid, remote->blocked);
    if (!error)
        error = sh_set_registers(tid, NT_PRSTATUS, &remote->registers, sizeof remote->registers);
    return error ? error : sh_trace(PTRACE_DETACH, tid, 0, NULL);
}
