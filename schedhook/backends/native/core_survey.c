/* Python's interface to surveys. */
#include "core.h"
#include "scanner.h"
#include "survey.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define FRAMES "schedhook.frames"

static void free_frames(PyObject *capsule)
{
    struct sh_frames *frames = PyCapsule_GetPointer(capsule, FRAMES);

    sh_frames_free(frames);
    free(frames);
}

PyObject *core_zero_frame(PyObject *self, PyObject *args)
{
    int pagemap;
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *page;
    uint64_t entry = 0;

    (void)self;
    if (!PyArg_ParseTuple(args, "i:zero_frame", &pagemap))
        return NULL;
    page = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return core_raise_errno(errno);
    (void)*(volatile char *)page; /* a page that was only read is the zero page */
    if (sh_read_pagemap(pagemap, &entry, sizeof entry, (uintptr_t)page / size * sizeof entry) !=
        sizeof entry)
        entry = 0;
    munmap(page, size);
    return PyLong_FromUnsignedLongLong(entry & SH_PAGEMAP_FRAME);
}

PyObject *core_frames(PyObject *self, PyObject *unused)
{
    struct sh_frames *frames = calloc(1, sizeof *frames);
    PyObject *capsule;

    (void)self;
    (void)unused;
    if (!frames)
        return PyErr_NoMemory();
    capsule = PyCapsule_New(frames, FRAMES, free_frames);
    if (!capsule)
        free(frames);
    return capsule;
}

static PyObject *survey_to_python(const struct sh_survey *survey)
{
    PyObject *bytes = PyList_New(0);

    for (int node = 0; bytes && node < SH_NODES; node++) {
        PyObject *item;

        if (!survey->bytes[node])
            continue;
        item = Py_BuildValue("(iK)", node, (unsigned long long)survey->bytes[node]);
        if (!item || PyList_Append(bytes, item) < 0)
            Py_CLEAR(bytes);
        Py_XDECREF(item);
    }
    if (!bytes)
        return NULL;
    if (!survey->skipped)
        return Py_BuildValue("(NO)", bytes, Py_None);
    return Py_BuildValue("(Ny#)", bytes, survey->count ? (const char *)survey->extents : "",
                         (Py_ssize_t)(survey->count * sizeof *survey->extents));
}

PyObject *core_survey(PyObject *self, PyObject *args)
{
    PyObject *range_args, *capsule, *answer = NULL;
    struct sh_range range;
    struct sh_frames *frames = NULL;
    struct sh_survey *survey;
    int part, error;

    (void)self;
    if (!PyArg_ParseTuple(args, "O!Oi:survey", &PyTuple_Type, &range_args, &capsule, &part) ||
        core_parse_range(range_args, &range) < 0)
        return NULL;
    if (capsule != Py_None && !(frames = PyCapsule_GetPointer(capsule, FRAMES)))
        return NULL;
    survey = calloc(1, sizeof *survey);
    if (!survey)
        return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS
        error = sh_survey(&range, frames, (enum sh_part)part, survey);
    Py_END_ALLOW_THREADS
    if (error == SH_NO_LOCAL_MEMORY)
        PyErr_NoMemory();
    else
        answer = error ? core_raise_errno(error) : survey_to_python(survey);
    free(survey->extents);
    free(survey);
    return answer;
}
