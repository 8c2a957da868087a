/* Descriptors that some builds of Python cannot make, since their C library was too old. */
#include "core.h"

#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434 /* on every architecture; Linux 5.3 */
#endif

PyObject *core_pidfd_open(PyObject *self, PyObject *args)
{
    int pid;
    long fd;

    (void)self;
    if (!PyArg_ParseTuple(args, "i:pidfd_open", &pid))
        return NULL;
    fd = syscall(SYS_pidfd_open, pid, 0u);
    return fd < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(fd);
}

PyObject *core_memfd_create(PyObject *self, PyObject *args)
{
    const char *name;
    unsigned int flags;
    long fd;

    (void)self;
    if (!PyArg_ParseTuple(args, "sI:memfd_create", &name, &flags))
        return NULL;
    fd = syscall(SYS_memfd_create, name, flags);
    return fd < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(fd);
}
