"""Provides a mapper with a built-in name, and one with a new name."""

from schedhook import MapperPlugin, hookimpl
from schedhook.values.model import NodeMap


def stay(old, _new, _topology):
    return NodeMap(pairs={node: node for node in old}, mapper="stay")


@hookimpl
def schedhook_mappers():
    return [
        MapperPlugin(name="relative", summary="not the built-in one", map=stay),
        MapperPlugin(name="stay", summary="nothing moves", map=stay),
    ]
