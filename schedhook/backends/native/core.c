/* Python's interface to the engine: parse, call with the GIL released, return. Limited API. */
#include "core.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MPOL_MF_MOVE (1 << 1) /* <linux/mempolicy.h> */
#define MPOL_MF_MOVE_ALL (1 << 2)
#define KCMP_VM 1 /* <linux/kcmp.h> */

PyObject *core_raise_errno(int number)
{
    errno = number;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *core_migrate_pages(PyObject *self, PyObject *args)
{
    int pid, pidfd, task;
    const char *from, *to;
    Py_ssize_t from_size, to_size;
    long left = -1;

    (void)self;
    if (!PyArg_ParseTuple(args, "iiiy#y#:migrate_pages", &pid, &pidfd, &task, &from, &from_size,
                          &to, &to_size))
        return NULL;
    if (from_size != to_size || from_size % (Py_ssize_t)sizeof(long)) {
        PyErr_SetString(PyExc_ValueError, "both masks must have the same size, in whole longs");
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
        /* Nothing must come between check and call: it would give another process time to get the
         * number. The kernel reads maxnode - 1 bits. */
        errno = ESRCH;
        if (!sh_exited(pidfd, task))
            left = syscall(SYS_migrate_pages, pid, (unsigned long)from_size * 8 + 1, from, to);
    Py_END_ALLOW_THREADS
    return left < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(left);
}

static PyObject *core_bind(PyObject *self, PyObject *args)
{
    int tid, task;
    const char *mask;
    Py_ssize_t size;
    long result = -1;
    bool ended;

    (void)self;
    if (!PyArg_ParseTuple(args, "iiy#:bind", &tid, &task, &mask, &size))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
        errno = ESRCH;
        if (!sh_exited(-1, task))
            result = syscall(SYS_sched_setaffinity, tid, (size_t)size, mask);
        int error = errno;
        ended = sh_exited(-1, task);
        errno = error;
    Py_END_ALLOW_THREADS
    if (result < 0 && !ended)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyBool_FromLong(!ended);
}

int core_parse_range(PyObject *args, struct sh_range *range)
{
    int pid, pidfd, task, pagemap, use_scan, kpageflags;
    unsigned long long start, end, page_size, base_size, folio_size, zero_frame;
    const char *spans;
    Py_ssize_t spans_size;

    if (!PyArg_ParseTuple(args, "iiiiKKKKKpiKy#", &pid, &pidfd, &task, &pagemap, &start, &end,
                          &page_size, &base_size, &folio_size, &use_scan, &kpageflags, &zero_frame,
                          &spans, &spans_size))
        return -1;
    if (spans_size % (Py_ssize_t)sizeof(struct sh_span)) {
        PyErr_SetString(PyExc_ValueError, "spans must be (start, end, node), 64 bits each");
        return -1;
    }
    if (!base_size || !page_size || page_size % base_size || folio_size % base_size ||
        start % page_size || end % page_size || end < start) {
        PyErr_SetString(PyExc_ValueError, "the range must consist of whole pages");
        return -1;
    }
    *range = (struct sh_range){.pid = pid,
                               .pidfd = pidfd,
                               .task = task,
                               .pagemap = pagemap,
                               .start = start,
                               .end = end,
                               .page_size = page_size,
                               .base_size = base_size,
                               .folio_size = folio_size,
                               .use_scan = use_scan,
                               .kpageflags = kpageflags,
                               .zero_frame = zero_frame};
    /* Bytes objects are aligned, though nothing guarantees it; they live as long as `args`. */
    if ((uintptr_t)spans % _Alignof(struct sh_span) == 0) {
        range->spans = (const struct sh_span *)(const void *)spans;
        range->span_count = (size_t)spans_size / sizeof(struct sh_span);
    }
    return 0;
}

static PyObject *moved_to_python(const struct sh_result *result, const struct sh_options *options)
{
    PyObject *moved = PyList_New(0);

    for (size_t node = 0; moved && node < options->nodes; node++) {
        PyObject *item;

        if (!result->moved[node])
            continue;
        item = Py_BuildValue("((ni)K)", (Py_ssize_t)node, (int)options->destination[node],
                             (unsigned long long)result->moved[node]);
        if (!item || PyList_Append(moved, item) < 0)
            Py_CLEAR(moved);
        Py_XDECREF(item);
    }
    return moved;
}

static PyObject *failures_to_python(const struct sh_result *result)
{
    PyObject *failures = PyList_New(0);

    for (size_t i = 0; failures && i < result->failure_count; i++) {
        const struct sh_failure *failure = &result->failures[i];
        PyObject *item = Py_BuildValue("(KKiKK)", (unsigned long long)failure->start,
                                       (unsigned long long)failure->end, failure->error,
                                       (unsigned long long)failure->size,
                                       (unsigned long long)failure->page_size);

        if (!item || PyList_Append(failures, item) < 0)
            Py_CLEAR(failures);
        Py_XDECREF(item);
    }
    return failures;
}

static PyObject *core_sweep(PyObject *self, PyObject *args)
{
    PyObject *range_args, *moved, *failures;
    struct sh_range range;
    struct sh_options options = {0};
    struct sh_result *result;
    const char *destinations, *only;
    Py_ssize_t size, only_size;
    int shared, error;
    unsigned long long batch_bytes, call_ns;

    (void)self;
    if (!PyArg_ParseTuple(args, "O!y#y#pKK:sweep", &PyTuple_Type, &range_args, &destinations, &size,
                          &only, &only_size, &shared, &batch_bytes, &call_ns) ||
        core_parse_range(range_args, &range) < 0)
        return NULL;
    if (only_size % (Py_ssize_t)sizeof(struct sh_extent) ||
        (uintptr_t)only % _Alignof(struct sh_extent)) {
        PyErr_SetString(PyExc_ValueError, "extents must be (start, end), 64 bits each");
        return NULL;
    }
    options.only = (const struct sh_extent *)(const void *)only;
    options.only_count = (size_t)only_size / sizeof(struct sh_extent);
    options.nodes = (size_t)size / sizeof(int32_t);
    options.flags = shared ? MPOL_MF_MOVE_ALL : MPOL_MF_MOVE;
    options.batch_bytes = batch_bytes ? batch_bytes : 1;
    options.call_ns = call_ns;
    /* Bytes objects are suitably aligned, but that is not guaranteed. */
    int32_t *table = malloc(size ? (size_t)size : 1);
    result = calloc(1, sizeof *result);
    if (table && result)
        result->moved = calloc(options.nodes ? options.nodes : 1, sizeof *result->moved);
    if (!table || !result || !result->moved) {
        free(table);
        free(result);
        return PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; i < size; i++)
        ((char *)table)[i] = destinations[i];
    options.destination = table;

    Py_BEGIN_ALLOW_THREADS
        error = sh_sweep(&range, &options, result);
    Py_END_ALLOW_THREADS
    PyObject *answer = NULL;
    if (error == SH_NO_LOCAL_MEMORY) {
        PyErr_NoMemory();
    } else {
        moved = moved_to_python(result, &options);
        failures = moved ? failures_to_python(result) : NULL;
        if (failures)
            answer =
                Py_BuildValue("(OOKi)", moved, failures, (unsigned long long)result->calls, error);
        Py_XDECREF(moved);
        Py_XDECREF(failures);
    }
    free(result->moved);
    free(result);
    free(table);
    return answer;
}

static PyObject *core_locate(PyObject *self, PyObject *args)
{
    struct sh_range range;
    struct sh_runs runs = {0};
    PyObject *list;
    int error;

    (void)self;
    if (core_parse_range(args, &range) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
        error = sh_locate(&range, &runs);
    Py_END_ALLOW_THREADS
    if (error) {
        free(runs.items);
        return error == SH_NO_LOCAL_MEMORY ? PyErr_NoMemory() : core_raise_errno(error);
    }
    list = PyList_New(0);
    for (size_t i = 0; list && i < runs.count; i++) {
        const struct sh_run *run = &runs.items[i];
        PyObject *item = Py_BuildValue(
            "(KKiKO)", (unsigned long long)run->start, (unsigned long long)run->end, run->node,
            (unsigned long long)run->page_size, run->hidden ? Py_True : Py_False);

        if (!item || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    free(runs.items);
    return list;
}

static PyObject *core_boundary(PyObject *self, PyObject *args)
{
    struct sh_range range;
    uint64_t end;

    (void)self;
    if (core_parse_range(args, &range) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
        end = sh_boundary(&range);
    Py_END_ALLOW_THREADS
    return PyLong_FromUnsignedLongLong(end);
}

static PyObject *core_can_scan(PyObject *self, PyObject *args)
{
    int pagemap;

    (void)self;
    if (!PyArg_ParseTuple(args, "i:can_scan", &pagemap))
        return NULL;
    return PyBool_FromLong(sh_can_scan(pagemap));
}

/* Querying the node of a page needs the same permission as moving it, and moves nothing. */
/* The kernel checks the right before the number of pages, which is 0: to look at one it would wait
 * for the lock of the process's memory, and not even the end of this process would end that. */
static PyObject *core_check_access(PyObject *self, PyObject *args)
{
    int pid;

    (void)self;
    if (!PyArg_ParseTuple(args, "i:check_access", &pid))
        return NULL;
    if (syscall(SYS_move_pages, pid, 0ul, NULL, NULL, NULL, 0) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

/* The kernel checks CAP_SYS_NICE for MPOL_MF_MOVE_ALL before the number of pages, which is 0. */
static PyObject *core_may_move_shared(PyObject *self, PyObject *args)
{
    (void)self;
    (void)args;
    return PyBool_FromLong(syscall(SYS_move_pages, 0, 0ul, NULL, NULL, NULL, MPOL_MF_MOVE_ALL) ==
                           0);
}

static PyObject *core_shares_memory(PyObject *self, PyObject *args)
{
    int pid, other;
    long order;

    (void)self;
    if (!PyArg_ParseTuple(args, "ii:shares_memory", &pid, &other))
        return NULL;
    order = syscall(SYS_kcmp, pid, other, KCMP_VM, 0ul, 0ul);
    return order < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyBool_FromLong(order == 0);
}

static PyMethodDef methods[] = {
    {"migrate_pages", core_migrate_pages, METH_VARARGS,
     "migrate_pages(pid, pidfd, task, from, to): call migrate_pages(2) with two node masks; return"
     " the folios not moved."},
    {"bind", core_bind, METH_VARARGS,
     "bind(tid, task, mask): call sched_setaffinity(2); see _core.pyi."},
    {"sweep", core_sweep, METH_VARARGS,
     "sweep(range, destinations, only, shared, batch_bytes, call_ns): move pages; see _core.pyi."},
    {"locate", core_locate, METH_VARARGS, "locate(*range): return runs of pages; see _core.pyi."},
    {"boundary", core_boundary, METH_VARARGS,
     "boundary(*range): return where the folio ends that its start cuts; see _core.pyi."},
    {"zero_frame", core_zero_frame, METH_VARARGS,
     "zero_frame(pagemap): return the frame of the zero page; see _core.pyi."},
    {"frames", core_frames, METH_NOARGS, "frames(): return an empty set of frames."},
    {"survey", core_survey, METH_VARARGS,
     "survey(range, frames, part): count pages once; see _core.pyi."},
    {"can_scan", core_can_scan, METH_VARARGS,
     "can_scan(pagemap): return whether the PAGEMAP_SCAN ioctl works on it."},
    {"check_access", core_check_access, METH_VARARGS,
     "check_access(pid): raise OSError if the caller may not query the process's pages."},
    {"may_move_shared", core_may_move_shared, METH_NOARGS,
     "may_move_shared(): return whether MPOL_MF_MOVE_ALL is permitted."},
    {"shares_memory", core_shares_memory, METH_VARARGS,
     "shares_memory(pid, other): return whether both have the same address space; kcmp(2)."},
    {"pidfd_open", core_pidfd_open, METH_VARARGS, "pidfd_open(pid): see pidfd_open(2)."},
    {"memfd_create", core_memfd_create, METH_VARARGS,
     "memfd_create(name, flags): see memfd_create(2)."},
    {"open_window", sh_core_open_window, METH_VARARGS,
     "open_window(file, pagemap, offset, size, page_size, base_size, unwritten): map the pages of "
     "an"
     " object that no process maps; see _core.pyi."},
    {"close_window", sh_core_close_window, METH_VARARGS,
     "close_window(address, size): unmap what open_window mapped."},
    {"identify", sh_core_identify, METH_VARARGS,
     "identify(fd): return (major, minor, inode, mode) of a file, without asking a server."},
    {"file_system", sh_core_file_system, METH_VARARGS,
     "file_system(fd): return (type, block size); fstatfs(2)."},
    {"open_watch", sh_core_open_watch, METH_NOARGS,
     "open_watch(): return a descriptor that does not block; inotify_init1(2)."},
    {"watch_writes", sh_core_watch_writes, METH_VARARGS,
     "watch_writes(fd, path): return the number of a new watch for writes; inotify(7)."},
    {NULL, NULL, 0, NULL}};

static PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)sh_add_remote}, {0, NULL}};

static struct PyModuleDef module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "schedhook.backends.native._core",
    .m_doc = "System calls that find and move pages.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&module);
}
