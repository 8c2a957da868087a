"""Uses a name that has the wrong form for a configuration or a command line."""

from schedhook import MapperPlugin, hookimpl


@hookimpl
def schedhook_mappers():
    return [MapperPlugin(name="My Mapper", summary="the name has a blank", map=print)]
