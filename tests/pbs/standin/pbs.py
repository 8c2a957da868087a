"""A stand-in for OpenPBS's module `pbs`, as far as a hook on an execution host meets it.

It behaves as pbs_python 23.06 was seen to behave, oddities included. What the hook is told and
what it did pass through two files, whose names are in the environment.
"""

import json
import os
import time

LOG_ERROR, LOG_WARNING, LOG_DEBUG = 7, 6, 5
EVENT_ERROR, EVENT_JOB, EVENT_DEBUG = 0x0001, 0x0008, 0x0080

EXECJOB_BEGIN = 64
EXECJOB_PROLOGUE = 128
EXECJOB_EPILOGUE = 256
EXECJOB_END = 512
EXECJOB_PRETERM = 1024
EXECJOB_LAUNCH = 2048
EXECHOST_PERIODIC = 4096
EXECHOST_STARTUP = 8192
EXECJOB_ATTACH = 16384
PERIODIC = 32768
EXECJOB_RESIZE = 131072
EXECJOB_ABORT = 262144
EXECJOB_POSTSUSPEND = 524288
EXECJOB_PRERESUME = 1048576

hook_config_filename = os.environ.get("PBS_HOOK_CONFIG_FILE")

with os.fdopen(os.open(os.environ.pop("STANDIN_EVENT"), os.O_RDONLY), encoding="ascii") as _file:
    _told = json.load(_file)
_journal = os.open(os.environ.pop("STANDIN_JOURNAL"), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)


def _note(kind, *values):
    os.write(_journal, json.dumps([kind, *values]).encode() + b"\n")


class EventIncompatibleError(AttributeError):
    """The event has no such thing."""


class BadAttributeValueError(Exception):
    """Written where only reading is allowed."""


class exec_vnode:  # the name is PBS's
    """A type of PBS that is not a string, but turns into one."""

    def __init__(self, value):
        self._value = value

    def __str__(self):
        return self._value


class pbs_int(int):
    """The type of a job's numbers, which is not quite int."""


_TYPES = {"exec_vnode": exec_vnode, "session_id": pbs_int, "run_count": pbs_int}


class _Job:
    """Attributes that are not set are None; those that PBS does not know raise."""

    _KNOWN = frozenset(
        ["id", "euser", "egroup", "exec_vnode", "exec_host", "exec_host2", "schedselect", "queue"]
    ) | {"session_id", "Resource_List", "resources_used", "run_count", "server", "Account_Name"}

    def __init__(self, values):
        values = dict(values)
        # The string on the primary host, the constant on the others.
        self.__dict__["_primary"] = "True" if values.pop("primary", True) else False
        self.__dict__["_values"] = values

    def __getattr__(self, name):
        if name not in self._KNOWN:
            raise AttributeError(f"'_job' object has no attribute {name!r}")
        value = self._values.get(name)
        if value is not None and name in _TYPES:
            return _TYPES[name](value)
        return value

    def __setattr__(self, name, value):
        raise BadAttributeValueError(f"the attribute '{name}' is readonly")

    def __str__(self):
        return str(self.id)

    def in_ms_mom(self):
        return self._primary


class _Event:
    def __init__(self, told):
        told = dict(told)
        for name in ("type", "hook_name", "requestor", "requestor_host"):
            setattr(self, name, told.pop(name, None))
        param = {}
        if "job" in told:
            param["job"] = _Job(told.pop("job"))
        if "job_list" in told:
            param["job_list"] = {key: _Job(job) for key, job in told.pop("job_list").items()}
        param.update(told)
        self._param = param

    def __getattr__(self, key):
        if key == "_param":
            raise AttributeError(key)
        try:
            return self._param[key]
        except KeyError:
            raise EventIncompatibleError(f'"{key}" not found in self._param') from None

    def accept(self, ecode=0):
        _note("accept")
        raise SystemExit(str(ecode))

    def reject(self, emsg="", ecode=255):
        _note("reject", emsg)
        raise SystemExit(str(ecode))


_event = _Event(_told)


def event():
    return _event


def get_local_nodename():
    return _told.get("local_nodename", "n1")


def logmsg(level, message):
    if not isinstance(level, int):
        raise TypeError("an integer is required")
    _note("logmsg", str(message), time.time())


def logjobmsg(jobid, message):
    if not jobid:
        raise ValueError("no jobid given!")
    _note("logjobmsg", str(jobid), str(message))
