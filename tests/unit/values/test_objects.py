"""What tells one shared object from another."""

from __future__ import annotations

import pytest

from schedhook.values.objects import ObjectId, ObjectKind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"/SYSV0000162e (deleted)", ObjectKind.SYSV),
        (b"/memfd:java_heap (deleted)", ObjectKind.MEMFD),
        (b"/memfd:two\nlines (deleted)", ObjectKind.MEMFD),
        (b"/dev/zero (deleted)", ObjectKind.ANONYMOUS),
        (b"/dev/zero", ObjectKind.FILE),
        (b"/dev/shm/x (deleted)", ObjectKind.FILE),
        (b"/home/a/memfd:x (deleted)", ObjectKind.FILE),
        (b"", ObjectKind.FILE),
    ],
)
def test_the_name_tells_the_kind(name: bytes, kind: ObjectKind) -> None:
    assert ObjectKind.of_name(name) is kind


def test_a_segment_is_not_a_memfd_with_its_number() -> None:
    """Both are on the kernel's own device, and a segment's identifier is its inode number."""
    segment = ObjectId("0:1", 2049, ObjectKind.SYSV)
    assert segment != ObjectId("0:1", 2049, ObjectKind.MEMFD)
