"""Fails in one registration hook, and has another that works."""

from schedhook import MapperPlugin, hookimpl


@hookimpl
def schedhook_strategies():
    raise OSError("no such device")


@hookimpl
def schedhook_mappers():
    return [MapperPlugin(name="sound", summary="the part that works", map=print)]
