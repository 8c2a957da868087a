"""PBS's exec_vnode: which vnodes a job has, and which NUMA nodes of a host they are.

The grammar is that of parse_plus_spec and parse_node_resc in OpenPBS's grunt_parse.c:

    (n1[0]:ncpus=2:mem=4gb+n1[1]:mem=1gb)+(n2:ncpus=4)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from schedhook.values.sets import NodeSet

_NUMBERED = re.compile(r"(?P<host>.+)\[(?P<number>[0-9]{1,5})\]", re.DOTALL)
_TOKEN = re.compile(r""" [()+:] | (?: [^()+:"'] | "[^"]*" | '[^']*' )+ """, re.VERBOSE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vnode:
    """A vnode of a job, with the resources that the job has of it."""

    name: str
    resources: Mapping[str, str]
    """As PBS writes them: {"ncpus": "2", "mem": "4gb"}, quotes included."""

    @property
    def host(self) -> str:
        """Return the name without a number in brackets."""
        match = _NUMBERED.fullmatch(self.name)
        return match["host"] if match else self.name

    @property
    def node(self) -> int | None:
        """Return N of `host[N]`, the NUMA node if the cgroups hook makes a vnode for each.

        None for a vnode that is a whole host, or that a site has named otherwise.
        """
        match = _NUMBERED.fullmatch(self.name)
        return int(match["number"]) if match else None

    @property
    def has_cpus(self) -> bool:
        """Return whether the job has processors of it."""
        return self.resources.get("ncpus", "0") != "0"


Chunk = tuple[Vnode, ...]


def parse_exec_vnode(text: str) -> tuple[Chunk, ...]:
    """Return the chunks of an exec_vnode, each with its vnodes.

    Raise ValueError, which says what is wrong at which character.
    """
    tokens = list(_tokens(text))
    chunks: list[Chunk] = []
    position = 0
    while True:
        grouped = tokens[position][0] == "("
        position += grouped
        vnodes = []
        while True:
            vnode, position = _vnode(tokens, position)
            vnodes.append(vnode)
            if not (grouped and tokens[position][0] == "+"):
                break
            position += 1
        if grouped:
            _expect(tokens[position], ")")
            position += 1
        chunks.append(tuple(vnodes))
        if tokens[position][0] == "":
            return tuple(chunks)
        _expect(tokens[position], "+")
        position += 1


def nodes_on_host(chunks: Iterable[Chunk], host: str) -> NodeSet | None:
    """Return the NUMA nodes that a job has on `host`; empty if it has none there.

    None if the vnodes do not tell: one of them is the whole host, or no vnode has a name that
    could be this host's (a site may name them freely).
    """
    vnodes = [vnode for chunk in chunks for vnode in chunk]
    named = _of_host(vnodes, host)
    if any(vnode.node is None for vnode in named):
        return None
    if not named and any(vnode.node is None for vnode in vnodes):
        return None
    return NodeSet(vnode.node for vnode in named if vnode.node is not None)


def cpu_nodes_on_host(chunks: Iterable[Chunk], host: str) -> NodeSet | None:
    """Return the NUMA nodes of which a job has processors on `host`, None for every node.

    PBS counts a whole host's processors together; those of a vnode that is one node, by themselves.
    Raise ValueError if no vnode has a name that could be this host's.
    """
    named = _of_host((vnode for chunk in chunks for vnode in chunk), host)
    if not named:
        raise ValueError(f"no vnode of {host!r} among them")
    if any(vnode.node is None for vnode in named):
        return None
    return NodeSet(vnode.node for vnode in named if vnode.node is not None and vnode.has_cpus)


def _of_host(vnodes: Iterable[Vnode], host: str) -> list[Vnode]:
    """Return the vnodes whose host has this name; if there are none, this short name."""
    vnodes = list(vnodes)
    wanted = host.lower()
    exact = [vnode for vnode in vnodes if vnode.host.lower() == wanted]
    if exact:
        return exact
    return [
        vnode
        for vnode in vnodes
        # n1 and n1.example.org may be one host; n1.a and n1.b are two.
        if ("." not in vnode.host or "." not in wanted)
        and vnode.host.lower().partition(".")[0] == wanted.partition(".")[0]
    ]


Token = tuple[str, int]
"""A piece of the text, and the position of its first character; empty at the end."""


def _tokens(text: str) -> Iterator[Token]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"unclosed quote at character {position + 1}")
        if match[0].strip():
            yield match[0].strip(), position
        position = match.end()
    yield "", position


def _vnode(tokens: list[Token], position: int) -> tuple[Vnode, int]:
    name = _word(tokens[position], "a vnode's name")
    position += 1
    resources: dict[str, str] = {}
    while tokens[position][0] == ":":
        word = _word(tokens[position + 1], "resource=value")
        key, equals, value = word.partition("=")
        if not (key.strip() and equals):
            _fail(tokens[position + 1], "resource=value")
        resources[key.strip()] = value.strip()
        position += 2
    return Vnode(name=name, resources=resources), position


def _word(token: Token, wanted: str) -> str:
    if token[0] in ("", "(", ")", "+", ":"):
        _fail(token, wanted)
    return token[0]


def _expect(token: Token, wanted: str) -> None:
    if token[0] != wanted:
        _fail(token, repr(wanted))


def _fail(token: Token, wanted: str) -> None:
    found = repr(token[0]) if token[0] else "the end"
    raise ValueError(f"{wanted} expected at character {token[1] + 1}, not {found}")
