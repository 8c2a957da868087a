/* Functions of the extension module that are not in core.c. */
#ifndef SCHEDHOOK_CORE_H
#define SCHEDHOOK_CORE_H

#include <Python.h>

/* core_window.c */
PyObject *sh_core_open_window(PyObject *self, PyObject *args);
PyObject *sh_core_close_window(PyObject *self, PyObject *args);
PyObject *sh_core_identify(PyObject *self, PyObject *args);
PyObject *sh_core_file_system(PyObject *self, PyObject *args);

/* core_remote.c: add its functions to the module. */
int sh_add_remote(PyObject *module);

#endif
