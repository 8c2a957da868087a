"""Misspells one plug-in hook, and has another that is right."""

from schedhook import hookimpl


@hookimpl
def schedhook_mapper():
    return []


@hookimpl
def schedhook_strategies():
    return []
