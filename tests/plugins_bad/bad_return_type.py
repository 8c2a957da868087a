"""Returns a descriptor of the wrong role in one list, and a descriptor without a list."""

from schedhook import MapperPlugin, StrategyPlugin, hookimpl


@hookimpl
def schedhook_mappers():
    return [
        StrategyPlugin(name="misplaced", summary="not a mapper", move=print),
        MapperPlugin(name="in-place", summary="a mapper", map=print),
    ]


@hookimpl
def schedhook_strategies():
    return StrategyPlugin(name="bare", summary="not in a list", move=print)
