"""A sound strategy that chooses nodes, and others with one fault each."""

import itertools

from schedhook import StrategyPlugin, hookimpl


def good(_work):
    """Interleave all allowed nodes, page by page."""

    def choose(pages):
        nodes = list(pages.allowed)
        return [nodes[address // pages.page_size % len(nodes)] for address in pages.addresses]

    return choose


def moves_nothing(_work):
    return lambda _pages: None


def too_few_answers(_work):
    return lambda pages: [2] * (len(pages.addresses) - 1)


def base_pages_only(_work):
    """Answer for each 4,096 bytes, also of a huge page."""
    return lambda pages: [2 if 2 in pages.allowed else None] * ((pages.end - pages.start) // 4096)


def ignores_allowed(_work):
    return lambda _pages: 3


def raises(_work):
    raise ZeroDivisionError


def moves_itself(work):
    """Move pages while the plan is made."""
    work.plan_pages(lambda _pages: 2)
    work.carry_out()
    return lambda _pages: None


_CALLS = itertools.count()


def changes_its_mind(_work):
    """Choose other nodes in each relocation."""
    number = next(_CALLS)
    return lambda pages: None if pages.node == number % 2 else 3 if 3 in pages.allowed else None


class _Plugin:
    def __init__(self, choose_nodes):
        self._choose_nodes = choose_nodes

    @hookimpl
    def schedhook_strategies(self):
        return [StrategyPlugin(name="pages", summary="for a test", choose_nodes=self._choose_nodes)]


def plugin(choose_nodes):
    """Return a plug-in with this strategy."""
    return _Plugin(choose_nodes)
