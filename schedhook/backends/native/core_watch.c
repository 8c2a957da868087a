/* Python's interface to inotify(7): which files were written to. */
#include "core.h"

#include <sys/inotify.h>

PyObject *sh_core_open_watch(PyObject *self, PyObject *args)
{
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

    (void)self;
    (void)args;
    return fd < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(fd);
}

PyObject *sh_core_watch_writes(PyObject *self, PyObject *args)
{
    const char *path;
    int fd, watch;

    (void)self;
    if (!PyArg_ParseTuple(args, "iy:watch_writes", &fd, &path))
        return NULL;
    watch = inotify_add_watch(fd, path, IN_MODIFY);
    return watch < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(watch);
}
