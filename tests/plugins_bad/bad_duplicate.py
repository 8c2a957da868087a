"""Takes a name that a built-in mapper has, and a free one."""

from schedhook import MapperPlugin, hookimpl
from schedhook.values.model import NodeMap


def stay(old, _new, _topology):
    return NodeMap(pairs={node: node for node in old}, mapper="stay")


@hookimpl
def schedhook_mappers():
    return [
        MapperPlugin(name="relative", summary="not the relative that you know", map=stay),
        MapperPlugin(name="stay", summary="nothing moves", map=stay),
    ]
