"""Gives a name that cannot be written in a configuration or on a command line."""

from schedhook import MapperPlugin, hookimpl


@hookimpl
def schedhook_mappers():
    return [MapperPlugin(name="My Mapper", summary="unspeakable", map=print)]
