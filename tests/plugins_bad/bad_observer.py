"""Fails in every observer hook, differently in each."""

import sys

from schedhook import MigrationRefused, hookimpl


@hookimpl
def schedhook_event(event):
    raise RuntimeError(f"cannot handle\n{event.point}")


@hookimpl
def schedhook_before_migrate(plan):
    raise ZeroDivisionError(plan.strategy)


@hookimpl
def schedhook_after_migrate():
    raise MigrationRefused("too late to refuse")


@hookimpl
def schedhook_job_started():
    sys.exit(7)


@hookimpl
def schedhook_job_ended():
    raise AssertionError
