"""Tries to wrap what other plug-ins provide."""

from schedhook import hookimpl


@hookimpl(wrapper=True)
def schedhook_mappers():
    yield
    return []
