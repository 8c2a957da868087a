"""Misspells a hook, beside one that is right."""

from schedhook import hookimpl


@hookimpl
def schedhook_mapper():
    return []


@hookimpl
def schedhook_strategies():
    return []
