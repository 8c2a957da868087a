/* System calls in the threads of another process, by ptrace(2). It contains no Python and no
 * policy.
 *
 * The calls are made on the kernel's way back from a signal handler. The thread's
 * registers and signal mask are written to its memory as a signal frame, and the thread is sent to
 * the code that ends handlers, the restorer, which calls rt_sigreturn(2). Each time the thread
 * enters that system call, the tracer replaces it by another one, after which the thread is at the
 * restorer again. If the tracer is killed, at any moment, the thread therefore goes on by itself
 * with what it had. A tracer that lives restores it, and rt_sigreturn is never made.
 *
 * Only the thread that stopped another may trace it. If a function fails, that thread must end,
 * which lets the other one go. All functions of type int return 0 or an errno:
 *   ESRCH       the thread has ended
 *   EPERM       it may not be traced, or another process traces it
 *   ETIMEDOUT   it did not stop in time
 *   ENOEXEC     it is in 32-bit code
 *   EOPNOTSUPP  a signal frame would not restore it: it has a shadow stack, its system calls are
 *               dispatched to user space, or its state is too large
 *   EPROTO      it did something else than it was sent to do
 *   ENOSYS      not implemented for this architecture */
#ifndef SCHEDHOOK_REMOTE_H
#define SCHEDHOOK_REMOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#define SH_EXTENDED_SIZE 16384
#define SH_FRAME_SIZE (SH_EXTENDED_SIZE + 1024)

/* What a thread had when it was stopped. */
struct sh_remote {
    struct user_regs_struct registers;
    uint64_t blocked; /* signals */
    uint64_t extended_size;
    unsigned char extended[SH_EXTENDED_SIZE]; /* vector registers, as XSAVE stores them */
};

struct sh_remote_call {
    long number;
    uint64_t arguments[6];
};

/* Code that ends a signal handler; size 0 after the last. */
struct sh_code {
    size_t size;
    unsigned char bytes[16];
};
extern const struct sh_code sh_restorers[];

int sh_remote_stop(pid_t tid, uint64_t wait_ns, struct sh_remote *remote);

uint64_t sh_remote_stack_pointer(const struct sh_remote *remote);

/* Write the signal frame to `frame` (SH_FRAME_SIZE bytes), as it must be at `address`, a multiple
 * of 64, in the thread's memory. Return its size, in whole words. */
size_t sh_remote_frame(const struct sh_remote *remote, uint64_t address, unsigned char *frame);

/* Write whole words to a stopped thread's memory. */
int sh_remote_write(pid_t tid, uint64_t address, const uint64_t *words, size_t count);

/* Send a stopped thread to the restorer, with the frame at address `frame`. */
int sh_remote_enter(pid_t tid, const struct sh_remote *remote, uint64_t restorer, uint64_t frame);

/* Make a system call in a thread that was sent to the restorer. `result` is that of the kernel:
 * negative for an errno. */
int sh_remote_make(pid_t tid, uint64_t restorer, const struct sh_remote_call *call,
                   uint64_t wait_ns, int64_t *result);

/* Restore a thread that was sent to the restorer, and let it go. */
int sh_remote_leave(pid_t tid, const struct sh_remote *remote, uint64_t wait_ns);

#endif
