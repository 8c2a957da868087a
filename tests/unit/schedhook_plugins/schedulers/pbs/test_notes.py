"""What the adapter remembers, as texts in the journal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedhook.roles.notes import MemoryNotes
from schedhook_plugins.schedulers.pbs.notes import Fence, PbsNotes, Replacing, Told

PAIRS = st.dictionaries(st.integers(0, 9), st.integers(0, 9), max_size=2)
SETS = st.text("0123-,", max_size=4)


def written(kind: str, value: Any) -> Any:
    """Return what is read of a value that was written."""
    store = MemoryNotes()
    notes = PbsNotes(lambda: store)
    getattr(notes, f"set_{kind}")("1", value)
    return getattr(notes, kind)("1")


@given(
    st.builds(
        Told,
        exec_vnode=st.none() | st.text(max_size=9),
        host=st.text(max_size=5),
        user=st.none() | st.integers(0, 9999),
        sessions=st.lists(st.integers(2, 9999), max_size=3).map(tuple),
        suspended=st.booleans(),
    )
)
def test_what_was_told_is_read_again(told: Told) -> None:
    assert written("told", told) == told


@given(st.none() | st.builds(Fence, before=SETS, wide=SETS))
def test_a_fence_is_read_again(fence: Fence | None) -> None:
    assert written("fence", fence) == fence


@given(
    st.none() | st.builds(Replacing, cpus=PAIRS, nodes=PAIRS, cpus_before=SETS, mems_before=SETS)
)
def test_a_replacing_is_read_again(replacing: Replacing | None) -> None:
    assert written("replacing", replacing) == replacing


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "{", "7", '{"sessions": 7}', '{"sessions": [1e999]}', '{"x": 1}']
)
def test_a_damaged_note_counts_as_missing(text: str) -> None:
    store = MemoryNotes()
    for key in ("pbs-told", "pbs-fence", "pbs-replacing"):
        store.set("1", key, text)
    notes = PbsNotes(lambda: store)
    assert (notes.told("1"), notes.fence("1"), notes.replacing("1")) == (Told(), None, None)


def test_what_is_known_is_not_written_again() -> None:
    class Store(MemoryNotes):
        def set(self, job: str, key: str, text: str) -> None:
            assert self.get(job, key) != text
            super().set(job, key, text)

    store = Store()
    notes = PbsNotes(lambda: store)
    for _ in range(2):
        notes.set_told("1", Told(host="n1"))
    notes.set_fence("1", None)
    assert store.get("1", "pbs-fence") is None
