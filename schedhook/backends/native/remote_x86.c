/* Threads of x86-64: their registers, signal frames and system calls.
 * Sources: the kernel's arch/x86/kernel/signal_64.c, signal.c (restarts) and fpu/signal.c. */
#define _GNU_SOURCE /* names of registers in <ucontext.h> */
#include "tracing.h"

#if defined(__x86_64__) && defined(__LP64__)

#include <cpuid.h>
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <ucontext.h>

#define NT_SHADOW_STACK 0x204 /* NT_X86_SHSTK */
#define SH_GET_RSEQ 0x420f    /* <linux/ptrace.h> */
#define SH_GET_DISPATCH 0x4211

/* Results of interrupted system calls that the kernel makes again; include/linux/errno.h. */
#define ERESTARTSYS 512
#define ERESTARTNOINTR 513
#define ERESTARTNOHAND 514
#define ERESTART_RESTARTBLOCK 516

#define SYSCALL_SIZE 2
#define NO_CALL (~0ull)  /* as orig_rax: not in a system call */
#define ANY 6            /* no argument is a time limit */
#define URING_EXTENDED 8 /* IORING_ENTER_EXT_ARG: a time limit may be in memory */
#define TRAP_FLAG 0x100  /* single steps */

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif
#ifndef SYS_io_uring_enter
#define SYS_io_uring_enter 426
#endif

/* mov $15, %rax; syscall: glibc, musl, Go. The shorter form of other compilers. */
const struct sh_code sh_restorers[] = {
    {9, {0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05}}, {7, {0xb8, 15, 0, 0, 0, 0x0f, 0x05}}, {0}};

/* XSAVE's image: 512 bytes of FXSAVE, whose last words are software's, and a header. */
#define SOFTWARE_WORDS 464
#define HEADER 512
#define LEAST_EXTENDED (HEADER + 64)
#define FLOATING_AND_SSE 3
#define MAGIC1 0x46505853u
#define MAGIC2 0x46505845u

struct software_words { /* struct _fpx_sw_bytes */
    uint32_t magic1, extended_size;
    uint64_t components;
    uint32_t xstate_size, padding[7];
};

/* struct rt_sigframe; the kernel's ucontext ends after the first word of uc_sigmask. */
#define CONTEXT 8
#define INFO_SIZE 128
#define CONTEXT_FLAGS 7 /* UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS */
#define EXTENDED ((CONTEXT + offsetof(ucontext_t, uc_sigmask) + 8 + INFO_SIZE + 63) & ~63ul)
#define NO_CHANGE 4 /* not a valid ss_flags: the thread keeps its signal stack */

_Static_assert(offsetof(ucontext_t, uc_mcontext) == 40 && offsetof(ucontext_t, uc_sigmask) == 296,
               "the C library's ucontext begins like the kernel's");
_Static_assert(sizeof(struct software_words) == 48, "as the kernel has it");

/* ---- what a thread has ---------------------------------------------------------------------- */

static int peek(pid_t tid, uint64_t address, uint64_t *words, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        errno = 0;
        words[i] = (uint64_t)ptrace(PTRACE_PEEKDATA, tid, address + i * sizeof *words, NULL);
        if (errno)
            return errno;
    }
    return 0;
}

/* A restartable sequence does not survive a stop: the kernel sends the thread to the sequence's
 * abort handler, rseq(2). It would not after the thread has been elsewhere, so do it here. */
static void abort_sequence(pid_t tid, struct user_regs_struct *registers)
{
    struct { /* struct ptrace_rseq_configuration */
        uint64_t area;
        uint32_t size, signature, flags, padding;
    } configuration = {0};
    struct { /* struct rseq_cs */
        uint64_t version_and_flags, start, size, handler;
    } sequence;
    uint64_t current;

    if (ptrace(SH_GET_RSEQ, tid, sizeof configuration, &configuration) <= 0 ||
        !configuration.area || peek(tid, configuration.area + 8, &current, 1) || !current ||
        peek(tid, current, &sequence.version_and_flags, sizeof sequence / 8))
        return;
    if (registers->rip - sequence.start < sequence.size)
        registers->rip = sequence.handler;
}

static bool dispatches_calls(pid_t tid)
{
    struct { /* struct ptrace_sud_config */
        uint64_t mode, selector, offset, length;
    } configuration = {0};

    return !sh_trace(SH_GET_DISPATCH, tid, sizeof configuration, &configuration) &&
           configuration.mode;
}

static uint64_t load(const unsigned char *bytes)
{
    uint64_t word;

    memcpy(&word, bytes, sizeof word);
    return word;
}

/* The part of the image that the thread uses. The kernel takes no more for a thread that has not
 * asked for large registers (AMX). */
static uint64_t extended_size(const unsigned char *image)
{
    uint64_t components = load(image + HEADER), end = LEAST_EXTENDED;

    for (unsigned i = 2; i < 63; i++) {
        unsigned size, offset, ignored;

        if (components >> i & 1 && __get_cpuid_count(13, i, &size, &offset, &ignored, &ignored) &&
            (uint64_t)offset + size > end)
            end = (uint64_t)offset + size;
    }
    return end;
}

/* Return whether that system call waits without a time limit, and ends with EINTR after a stop. */
static bool waits(long number, const struct user_regs_struct *registers)
{
    static const struct {
        long number;
        unsigned argument; /* that says whether there is a time limit */
        uint64_t bits;     /* of it */
        uint64_t without;  /* their value if there is none */
    } calls[] = {
        {SYS_epoll_wait, 3, UINT32_MAX, UINT32_MAX},
        {SYS_epoll_pwait, 3, UINT32_MAX, UINT32_MAX},
        {SYS_epoll_pwait2, 3, UINT64_MAX, 0},
        {SYS_rt_sigtimedwait, 2, UINT64_MAX, 0},
        {SYS_semtimedop, 3, UINT64_MAX, 0},
        {SYS_semop, ANY, 0, 0},
        {SYS_io_getevents, 4, UINT64_MAX, 0},
        {SYS_io_uring_enter, 3, URING_EXTENDED, 0}, /* EINTR: it has submitted nothing */
    };
    const uint64_t arguments[] = {registers->rdi,
                                  registers->rsi,
                                  registers->rdx,
                                  registers->r10,
                                  registers->r8,
                                  registers->r9,
                                  0};

    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (number == calls[i].number &&
            (arguments[calls[i].argument] & calls[i].bits) == calls[i].without)
            return true;
    }
    return false;
}

/* Let a wait go on that the stop has ended: as with other calls, the kernel makes it again unless a
 * signal handler runs first, which ends it with EINTR.
 *
 * The same if the thread is only about to make the call, perhaps again after an earlier stop: a
 * signal that comes while the thread is elsewhere could not end it otherwise. */
static void keep_wait(pid_t tid, struct user_regs_struct *registers)
{
    static const unsigned char call[SYSCALL_SIZE] = {0x0f, 0x05};
    uint64_t code;

    if ((long)registers->rax == -EINTR && waits((long)registers->orig_rax, registers)) {
        registers->rax = (unsigned long long)-ERESTARTNOHAND;
    } else if (waits((long)registers->rax, registers) && !peek(tid, registers->rip, &code, 1) &&
               !memcmp(&code, call, sizeof call)) {
        registers->orig_rax = registers->rax;
        registers->rax = (unsigned long long)-ERESTARTNOHAND;
        registers->rip += SYSCALL_SIZE;
    }
}

int sh_read_thread(pid_t tid, struct sh_remote *remote)
{
    uint64_t size = sizeof remote->registers, stack, stack_size = sizeof stack;
    uint64_t image_size = sizeof remote->extended;
    int error = sh_get_registers(tid, NT_PRSTATUS, &remote->registers, &size);

    if (error)
        return error;
    if (size != sizeof remote->registers)
        return ENOEXEC;
    if (!sh_get_registers(tid, NT_SHADOW_STACK, &stack, &stack_size) || dispatches_calls(tid))
        return EOPNOTSUPP;
    error = sh_get_registers(tid, NT_X86_XSTATE, remote->extended, &image_size);
    if (error)
        return error == ESRCH ? ESRCH : EOPNOTSUPP;
    if (image_size < LEAST_EXTENDED || image_size >= sizeof remote->extended)
        return EOPNOTSUPP;
    remote->extended_size = extended_size(remote->extended);
    if (remote->extended_size > image_size)
        return EOPNOTSUPP;
    abort_sequence(tid, &remote->registers);
    keep_wait(tid, &remote->registers);
    return 0;
}

uint64_t sh_remote_stack_pointer(const struct sh_remote *remote)
{
    return remote->registers.rsp;
}

/* ---- interrupted system calls --------------------------------------------------------------- */

/* Return the registers with which the thread continues after rt_sigreturn. The kernel does not
 * restart an interrupted system call then, so they make the thread call again; a time limit starts
 * over. */
static struct user_regs_struct without_kernel(const struct sh_remote *remote)
{
    struct user_regs_struct registers = remote->registers;
    long error = -(long)registers.rax;

    if (registers.orig_rax != NO_CALL &&
        (error == ERESTARTSYS || error == ERESTARTNOINTR || error == ERESTARTNOHAND ||
         error == ERESTART_RESTARTBLOCK)) {
        registers.rax = registers.orig_rax;
        registers.rip -= SYSCALL_SIZE;
        registers.orig_rax = NO_CALL;
    }
    return registers;
}

/* ---- the signal frame ----------------------------------------------------------------------- */

static void put_registers(greg_t *to, const struct user_regs_struct *from)
{
    const struct {
        int place;
        uint64_t value;
    } rows[] = {
        {REG_R8, from->r8},   {REG_R9, from->r9},      {REG_R10, from->r10}, {REG_R11, from->r11},
        {REG_R12, from->r12}, {REG_R13, from->r13},    {REG_R14, from->r14}, {REG_R15, from->r15},
        {REG_RDI, from->rdi}, {REG_RSI, from->rsi},    {REG_RBP, from->rbp}, {REG_RBX, from->rbx},
        {REG_RDX, from->rdx}, {REG_RAX, from->rax},    {REG_RCX, from->rcx}, {REG_RSP, from->rsp},
        {REG_RIP, from->rip}, {REG_EFL, from->eflags},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        to[rows[i].place] = (greg_t)rows[i].value;
    /* 16 bits each: cs, gs, fs, ss */
    to[REG_CSGSFS] = (greg_t)(from->cs | from->ss << 48);
}

static void put_extended(const struct sh_remote *remote, unsigned char *image)
{
    const uint32_t magic2 = MAGIC2;
    struct software_words words = {
        .magic1 = MAGIC1,
        .extended_size = (uint32_t)(remote->extended_size + sizeof magic2),
        .components = load(remote->extended + HEADER) | FLOATING_AND_SSE,
        .xstate_size = (uint32_t)remote->extended_size,
    };

    memcpy(image, remote->extended, remote->extended_size);
    memcpy(image + SOFTWARE_WORDS, &words, sizeof words);
    memcpy(image + remote->extended_size, &magic2, sizeof magic2);
}

size_t sh_remote_frame(const struct sh_remote *remote, uint64_t address, unsigned char *frame)
{
    struct user_regs_struct registers = without_kernel(remote);
    ucontext_t context;

    memset(&context, 0, sizeof context);
    context.uc_flags = CONTEXT_FLAGS;
    context.uc_stack.ss_flags = NO_CHANGE;
    put_registers(context.uc_mcontext.gregs, &registers);
    uint64_t image = address + EXTENDED;
    memcpy(&context.uc_mcontext.fpregs, &image, sizeof image);
    memcpy(&context.uc_sigmask, &remote->blocked, sizeof remote->blocked);

    memset(frame, 0, SH_FRAME_SIZE);
    memcpy(frame + CONTEXT, &context, offsetof(ucontext_t, uc_sigmask) + sizeof remote->blocked);
    put_extended(remote, frame + EXTENDED);
    return (EXTENDED + remote->extended_size + sizeof(uint32_t) + 7) & ~7ul;
}

/* ---- the restorer --------------------------------------------------------------------------- */

int sh_send_to(pid_t tid, const struct sh_remote *remote, uint64_t restorer, uint64_t frame)
{
    struct user_regs_struct registers = remote->registers;

    registers.rip = restorer;
    registers.rsp = frame + CONTEXT; /* a handler's return has taken its return address */
    registers.rax = 0;
    registers.orig_rax = NO_CALL;
    registers.eflags &= ~(uint64_t)TRAP_FLAG; /* a SIGTRAP that is blocked would kill it */
    return sh_set_registers(tid, NT_PRSTATUS, &registers, sizeof registers);
}

static int get(pid_t tid, struct user_regs_struct *registers)
{
    uint64_t size = sizeof *registers;
    int error = sh_get_registers(tid, NT_PRSTATUS, registers, &size);

    return !error && size != sizeof *registers ? EPROTO : error;
}

int sh_replace_call(pid_t tid, uint64_t restorer, const struct sh_remote_call *call)
{
    struct user_regs_struct registers;
    int error = get(tid, &registers);

    if (error)
        return error;
    if (registers.orig_rax != SYS_rt_sigreturn || registers.rip - restorer > 16)
        return EPROTO;
    registers.orig_rax = (unsigned long)call->number;
    registers.rdi = call->arguments[0];
    registers.rsi = call->arguments[1];
    registers.rdx = call->arguments[2];
    registers.r10 = call->arguments[3];
    registers.r8 = call->arguments[4];
    registers.r9 = call->arguments[5];
    registers.rip = restorer;
    return sh_set_registers(tid, NT_PRSTATUS, &registers, sizeof registers);
}

int sh_read_result(pid_t tid, uint64_t restorer, int64_t *result)
{
    struct user_regs_struct registers;
    int error = get(tid, &registers);

    *result = (int64_t)registers.rax;
    return !error && registers.rip != restorer ? EPROTO : error;
}

#else

#include <errno.h>

const struct sh_code sh_restorers[] = {{0}};

int sh_read_thread(pid_t tid, struct sh_remote *remote)
{
    (void)tid, (void)remote;
    return ENOSYS;
}

uint64_t sh_remote_stack_pointer(const struct sh_remote *remote)
{
    (void)remote;
    return 0;
}

size_t sh_remote_frame(const struct sh_remote *remote, uint64_t address, unsigned char *frame)
{
    (void)remote, (void)address, (void)frame;
    return 0;
}

int sh_send_to(pid_t tid, const struct sh_remote *remote, uint64_t restorer, uint64_t frame)
{
    (void)tid, (void)remote, (void)restorer, (void)frame;
    return ENOSYS;
}

int sh_replace_call(pid_t tid, uint64_t restorer, const struct sh_remote_call *call)
{
    (void)tid, (void)restorer, (void)call;
    return ENOSYS;
}

int sh_read_result(pid_t tid, uint64_t restorer, int64_t *result)
{
    (void)tid, (void)restorer, (void)result;
    return ENOSYS;
}

#endif
