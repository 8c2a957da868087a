/* Python's interface to system calls in another process's thread: parse, call with the GIL
 * released, return. Limited API. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "core.h"
#include "remote.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

static const struct {
    const char *name;
    long number;
} known_calls[] = {
    {"mmap", SYS_mmap},
    {"munmap", SYS_munmap},
    {"mbind", SYS_mbind},
    {"get_mempolicy", SYS_get_mempolicy},
    {"set_mempolicy", SYS_set_mempolicy},
};

static PyObject *none_or_error(int error)
{
    if (!error)
        Py_RETURN_NONE;
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

/* A converter of PyArg_ParseTuple. Bytes objects are aligned, though nothing guarantees it. */
static int parse_remote(PyObject *bytes, void *remote)
{
    char *data;
    Py_ssize_t size;

    if (PyBytes_AsStringAndSize(bytes, &data, &size) < 0)
        return 0;
    if (size != (Py_ssize_t)sizeof(struct sh_remote)) {
        PyErr_SetString(PyExc_ValueError, "not what remote_stop returned");
        return 0;
    }
    memcpy(remote, data, sizeof(struct sh_remote));
    return 1;
}

static PyObject *from_remote(const struct sh_remote *remote)
{
    return PyBytes_FromStringAndSize((const char *)remote, sizeof *remote);
}

static PyObject *core_remote_stop(PyObject *self, PyObject *args)
{
    struct sh_remote remote = {0};
    int tid, error;
    unsigned long long wait_ns;

    (void)self;
    if (!PyArg_ParseTuple(args, "iK:remote_stop", &tid, &wait_ns))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
        error = sh_remote_stop(tid, wait_ns, &remote);
    Py_END_ALLOW_THREADS
    if (error)
        return none_or_error(error);
    return Py_BuildValue("(NK)", from_remote(&remote),
                         (unsigned long long)sh_remote_stack_pointer(&remote));
}

static PyObject *core_remote_frame(PyObject *self, PyObject *args)
{
    struct sh_remote remote;
    unsigned char frame[SH_FRAME_SIZE];
    unsigned long long address;

    (void)self;
    if (!PyArg_ParseTuple(args, "O&K:remote_frame", parse_remote, &remote, &address))
        return NULL;
    if (address % 64) {
        PyErr_SetString(PyExc_ValueError, "the address must be a multiple of 64");
        return NULL;
    }
    size_t size = sh_remote_frame(&remote, address, frame);
    return PyBytes_FromStringAndSize((const char *)frame, (Py_ssize_t)size);
}

static PyObject *core_remote_write(PyObject *self, PyObject *args)
{
    int tid, error;
    unsigned long long address;
    const char *data;
    Py_ssize_t size;

    (void)self;
    if (!PyArg_ParseTuple(args, "iKy#:remote_write", &tid, &address, &data, &size))
        return NULL;
    if (size % 8 || (uintptr_t)data % _Alignof(uint64_t)) {
        PyErr_SetString(PyExc_ValueError, "write whole words");
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
        error =
            sh_remote_write(tid, address, (const uint64_t *)(const void *)data, (size_t)size / 8);
    Py_END_ALLOW_THREADS
    return none_or_error(error);
}

static PyObject *core_remote_enter(PyObject *self, PyObject *args)
{
    struct sh_remote remote;
    int tid, error;
    unsigned long long restorer, frame;

    (void)self;
    if (!PyArg_ParseTuple(args, "iO&KK:remote_enter", &tid, parse_remote, &remote, &restorer,
                          &frame))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
        error = sh_remote_enter(tid, &remote, restorer, frame);
    Py_END_ALLOW_THREADS
    return none_or_error(error);
}

static int find_call(const char *name, long *number)
{
    for (size_t i = 0; i < sizeof known_calls / sizeof *known_calls; i++) {
        if (!strcmp(name, known_calls[i].name)) {
            *number = known_calls[i].number;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "no system call %s here", name);
    return -1;
}

static PyObject *core_remote_make(PyObject *self, PyObject *args)
{
    struct sh_remote_call call;
    unsigned long long restorer, wait_ns, words[6] = {0};
    const char *name;
    int tid, error;
    int64_t result = 0;

    (void)self;
    if (!PyArg_ParseTuple(args, "iKsK|KKKKKK:remote_make", &tid, &restorer, &name, &wait_ns, words,
                          words + 1, words + 2, words + 3, words + 4, words + 5) ||
        find_call(name, &call.number) < 0)
        return NULL;
    for (size_t i = 0; i < 6; i++)
        call.arguments[i] = words[i];
    Py_BEGIN_ALLOW_THREADS
        error = sh_remote_make(tid, restorer, &call, wait_ns, &result);
    Py_END_ALLOW_THREADS
    return error ? none_or_error(error) : PyLong_FromLongLong(result);
}

static PyObject *core_remote_leave(PyObject *self, PyObject *args)
{
    struct sh_remote remote;
    int tid, error;
    unsigned long long wait_ns;

    (void)self;
    if (!PyArg_ParseTuple(args, "iO&K:remote_leave", &tid, parse_remote, &remote, &wait_ns))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
        error = sh_remote_leave(tid, &remote, wait_ns);
    Py_END_ALLOW_THREADS
    return none_or_error(error);
}

static PyObject *core_remote_restorers(PyObject *self, PyObject *args)
{
    PyObject *list = PyList_New(0);

    (void)self;
    (void)args;
    for (const struct sh_code *code = sh_restorers; list && code->size; code++) {
        PyObject *bytes =
            PyBytes_FromStringAndSize((const char *)code->bytes, (Py_ssize_t)code->size);

        if (!bytes || PyList_Append(list, bytes) < 0)
            Py_CLEAR(list);
        Py_XDECREF(bytes);
    }
    return list;
}

static PyMethodDef methods[] = {
    {"remote_stop", core_remote_stop, METH_VARARGS,
     "remote_stop(tid, wait_ns): stop a thread; see _core.pyi."},
    {"remote_frame", core_remote_frame, METH_VARARGS,
     "remote_frame(thread, address): return the signal frame that restores the thread."},
    {"remote_write", core_remote_write, METH_VARARGS,
     "remote_write(tid, address, data): write whole words to the memory of a stopped thread."},
    {"remote_enter", core_remote_enter, METH_VARARGS,
     "remote_enter(tid, thread, restorer, frame): prepare it to make calls; see _core.pyi."},
    {"remote_make", core_remote_make, METH_VARARGS,
     "remote_make(tid, restorer, name, wait_ns, *arguments): make a system call in the thread."},
    {"remote_leave", core_remote_leave, METH_VARARGS,
     "remote_leave(tid, thread, wait_ns): restore the thread and let it go."},
    {"remote_restorers", core_remote_restorers, METH_NOARGS,
     "remote_restorers(): return the code that ends signal handlers, in each form."},
    {NULL, NULL, 0, NULL}};

int sh_add_remote(PyObject *module)
{
    return PyModule_AddFunctions(module, methods);
}
