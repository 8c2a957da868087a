"""exec_vnode: what PBS writes is read, and what it does not write is refused with its place."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schedhook.values.sets import NodeSet
from schedhook_plugins.schedulers.pbs.vnodes import (
    Chunk,
    Vnode,
    nodes_on_host,
    parse_exec_vnode,
)

HOSTS = st.from_regex(r"[a-z][a-z0-9_-]{0,8}(\.[a-z]{1,5}){0,2}", fullmatch=True)
PLAIN = st.text(
    st.characters(exclude_characters="()+:\"'=", min_codepoint=33, max_codepoint=0x24F), min_size=1
).filter(lambda text: not any(char.isspace() for char in text))
QUOTED = st.tuples(st.sampled_from("\"'"), st.text("ab(+):=2 ", max_size=6)).map(
    lambda pair: pair[0] + pair[1] + pair[0]
)
VALUES = st.one_of(PLAIN, QUOTED, st.sampled_from(["4gb", "2", "1024kb", "", "a=b"]))


@st.composite
def vnodes(draw: st.DrawFn) -> Vnode:
    host = draw(HOSTS)
    number = draw(st.none() | st.integers(0, 1024))
    name = host if number is None else f"{host}[{number}]"
    return Vnode(name=name, resources=draw(st.dictionaries(PLAIN, VALUES, max_size=3)))


CHUNKS = st.lists(st.lists(vnodes(), min_size=1, max_size=3).map(tuple), min_size=1, max_size=4)


def written(chunks: list[Chunk], parentheses: bool) -> str:
    """As PBS writes it; parentheses may be left out around a single vnode."""

    def one(vnode: Vnode) -> str:
        return "".join([vnode.name, *(f":{key}={value}" for key, value in vnode.resources.items())])

    parts = []
    for chunk in chunks:
        text = "+".join(one(vnode) for vnode in chunk)
        parts.append(f"({text})" if parentheses or len(chunk) > 1 else text)
    return "+".join(parts)


@given(CHUNKS, st.booleans())
def test_what_is_written_is_read_back(chunks: list[Chunk], parentheses: bool) -> None:
    assert parse_exec_vnode(written(chunks, parentheses)) == tuple(chunks)


@given(CHUNKS)
def test_the_nodes_of_every_host_add_up(chunks: list[Chunk]) -> None:
    everything = [vnode for chunk in chunks for vnode in chunk]
    for host in {vnode.host for vnode in everything}:
        here = [vnode.node for vnode in everything if vnode.host == host]
        if None in here:
            assert nodes_on_host(chunks, host) is None
        else:
            assert nodes_on_host(chunks, host) == NodeSet(node for node in here if node is not None)


@given(st.text("n1[]()+:=2gb\"' \t,", max_size=30))
@example("(")
@example("n1[0]:ncpus=1+")
@example("(n1[0])(n1[1])")
@example("n1:='")
def test_anything_else_is_a_value_error(text: str) -> None:
    try:
        chunks = parse_exec_vnode(text)
    except ValueError as error:
        assert str(error).isprintable()
        return
    assert all(vnode.name for chunk in chunks for vnode in chunk)
    assert chunks
    assert all(chunks)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("", "character 1, not the end"),
        ("+n1", "character 1, not '+'"),
        ("(n1:ncpus=1", "character 12, not the end"),
        ("n1:ncpus=1)", "character 11, not ')'"),
        ("n1:", "character 4, not the end"),
        ("n1:ncpus", "character 4, not 'ncpus'"),
        ("n1++n2", "character 4, not '+'"),
        ("()", "character 2, not ')'"),
        ("((n1))", "character 2, not '('"),
        ('n1:a="b', "unclosed quote at character"),
    ],
)
def test_errors_say_where(text: str, at: str) -> None:
    with pytest.raises(
        ValueError, match=at.replace("(", r"\(").replace(")", r"\)").replace("+", r"\+")
    ):
        parse_exec_vnode(text)


@pytest.mark.parametrize(
    ("text", "host", "nodes"),
    [
        ("(n1[0]:ncpus=1:mem=1gb)+(n1[2]:ncpus=1)", "n1", "0,2"),
        ("(n1[0]:ncpus=1+n1[1]:mem=1gb)+(n2[3]:ncpus=1)", "n1", "0-1"),
        ("(n1[0]:ncpus=1+n1[1]:mem=1gb)+(n2[3]:ncpus=1)", "n2", "3"),
        ("(n1[0]:ncpus=1)", "n3", ""),
        # Names may be long on one side and short on the other, in any case.
        ("(n1.example.org[1]:ncpus=1)", "n1", "1"),
        ("(N1[1]:ncpus=1)", "n1.example.org", "1"),
        ("(n1.a[1]:ncpus=1)+(n1.b[2]:ncpus=1)", "n1.b", "2"),
        ("(n1.a[1]:ncpus=1)", "n1.b", ""),
        # A whole host says nothing about nodes.
        ("(n1:ncpus=4)", "n1", None),
        ("(n1:ncpus=4)+(n1[1]:ncpus=1)", "n1", None),
        ("(n2:ncpus=4)+(n1[1]:ncpus=1)", "n1", "1"),
        # Names that a site made up may be this host's.
        ("(left:ncpus=1)+(right:ncpus=1)", "n1", None),
        ("(left[x]:ncpus=1)", "n1", None),
        ("(n1[-1]:ncpus=1)", "n1", None),
        ("(n1[999999]:ncpus=1)", "n1", None),
    ],
)
def test_nodes_on_a_host(text: str, host: str, nodes: str | None) -> None:
    expected = None if nodes is None else NodeSet.parse(nodes)
    assert nodes_on_host(parse_exec_vnode(text), host) == expected
