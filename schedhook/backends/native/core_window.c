/* Python's interface to windows onto shared-memory objects. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "core.h"
#include "window.h"

#include <errno.h>
#include <sys/vfs.h>

static PyObject *raise_errno(int number)
{
    errno = number;
    return PyErr_SetFromErrno(PyExc_OSError);
}

PyObject *sh_core_open_window(PyObject *self, PyObject *args)
{
    int file, pagemap, unwritten, error;
    unsigned long long offset, size, page_size, base_size;

    (void)self;
    if (!PyArg_ParseTuple(args, "iiKKKKp:open_window", &file, &pagemap, &offset, &size, &page_size,
                          &base_size, &unwritten))
        return NULL;
    if (!base_size || !page_size || page_size % base_size || offset % page_size || !size ||
        size % page_size) {
        PyErr_SetString(PyExc_ValueError, "the window must consist of whole pages");
        return NULL;
    }
    struct sh_window window = {.file = file,
                               .pagemap = pagemap,
                               .offset = offset,
                               .size = size,
                               .page_size = page_size,
                               .base_size = base_size,
                               .unwritten = unwritten};
    Py_BEGIN_ALLOW_THREADS
        error = sh_window_open(&window);
    Py_END_ALLOW_THREADS
    return error ? raise_errno(error) : PyLong_FromUnsignedLongLong(window.address);
}

PyObject *sh_core_close_window(PyObject *self, PyObject *args)
{
    unsigned long long address, size;
    int error;

    (void)self;
    if (!PyArg_ParseTuple(args, "KK:close_window", &address, &size))
        return NULL;
    struct sh_window window = {.address = address, .size = size};
    Py_BEGIN_ALLOW_THREADS
        error = sh_window_close(&window);
    Py_END_ALLOW_THREADS
    if (error)
        return raise_errno(error);
    Py_RETURN_NONE;
}

PyObject *sh_core_identify(PyObject *self, PyObject *args)
{
    struct sh_identity found;
    int fd, error;

    (void)self;
    if (!PyArg_ParseTuple(args, "i:identify", &fd))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
        error = sh_identify(fd, &found);
    Py_END_ALLOW_THREADS
    if (error)
        return raise_errno(error);
    return Py_BuildValue("(IIKI)", (unsigned int)found.major, (unsigned int)found.minor,
                         (unsigned long long)found.inode, (unsigned int)found.mode);
}

PyObject *sh_core_file_system(PyObject *self, PyObject *args)
{
    struct statfs found;
    int fd, error = 0;

    (void)self;
    if (!PyArg_ParseTuple(args, "i:file_system", &fd))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
        if (fstatfs(fd, &found))
            error = errno;
    Py_END_ALLOW_THREADS
    if (error)
        return raise_errno(error);
    return Py_BuildValue("(kk)", (unsigned long)found.f_type, (unsigned long)found.f_bsize);
}
