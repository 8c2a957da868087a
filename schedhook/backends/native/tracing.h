/* What remote.c and the file for each architecture share. */
#ifndef SCHEDHOOK_TRACING_H
#define SCHEDHOOK_TRACING_H

#include "remote.h"

/* ptrace(2); return 0 or an errno. */
int sh_trace(int request, pid_t tid, uint64_t address, const void *data);
int sh_get_registers(pid_t tid, int kind, void *registers, uint64_t *size);
int sh_set_registers(pid_t tid, int kind, const void *registers, uint64_t size);

/* By architecture. Fill in `remote`. */
int sh_read_thread(pid_t tid, struct sh_remote *remote);

/* Send a stopped thread to the restorer. */
int sh_send_to(pid_t tid, const struct sh_remote *remote, uint64_t restorer, uint64_t frame);

/* Replace rt_sigreturn, which the thread is about to make, by another system call. */
int sh_replace_call(pid_t tid, uint64_t restorer, const struct sh_remote_call *call);

/* Get the result of that call. */
int sh_read_result(pid_t tid, uint64_t restorer, int64_t *result);

#endif
