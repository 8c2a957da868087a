"""Does not return its list."""

from schedhook import MapperPlugin, hookimpl


@hookimpl
def schedhook_mappers():
    [MapperPlugin(name="lost", summary="never returned", map=print)]
