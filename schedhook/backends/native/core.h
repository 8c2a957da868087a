/* What the files of Python's interface share. */
#ifndef SCHEDHOOK_CORE_H
#define SCHEDHOOK_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "engine.h"

/* Raise OSError with this errno; returns NULL. */
PyObject *core_raise_errno(int number);

/* Fill a range from the tuple that _core.pyi describes; it refers to its bytes. -1: an exception.
 */
int core_parse_range(PyObject *args, struct sh_range *range);

/* core_survey.c */
PyObject *core_zero_frame(PyObject *self, PyObject *args);
PyObject *core_frames(PyObject *self, PyObject *unused);
PyObject *core_survey(PyObject *self, PyObject *args);

/* core_descriptors.c */
PyObject *core_pidfd_open(PyObject *self, PyObject *args);
PyObject *core_memfd_create(PyObject *self, PyObject *args);

/* core_watch.c */
PyObject *sh_core_open_watch(PyObject *self, PyObject *args);
PyObject *sh_core_watch_writes(PyObject *self, PyObject *args);

/* core_window.c */
PyObject *sh_core_open_window(PyObject *self, PyObject *args);
PyObject *sh_core_close_window(PyObject *self, PyObject *args);
PyObject *sh_core_identify(PyObject *self, PyObject *args);
PyObject *sh_core_file_system(PyObject *self, PyObject *args);

/* core_remote.c: add its functions to the module. */
int sh_add_remote(PyObject *module);

#endif
