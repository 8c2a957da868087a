"""Denied access to processes, as far as a host with one node can show it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from schedhook.backends.native import _core, access
from schedhook.testing.hosts import write_file
from schedhook.values.errors import NoPermissionError, ProcessGoneError, RefusedError

ME = os.getpid()


@pytest.fixture
def pidfd() -> Iterator[int]:
    descriptor = os.pidfd_open(ME)
    yield descriptor
    os.close(descriptor)


def test_this_host_allows_every_call() -> None:
    assert dict(access.probe()) == {
        "move_pages": None,
        "migrate_pages": None,
        "pidfd_open": None,
        "/proc": None,
    }


@pytest.mark.parametrize(
    ("known_as", "error"),
    [
        ("ANOTHER", RefusedError),  # another pid namespace's /proc
        ("0", RefusedError),  # a pid namespace without this process
        ("-1", ProcessGoneError),
        ("ME", NoPermissionError),  # known, but hidden
        (None, RefusedError),  # no /proc
    ],
)
def test_proc_must_mean_the_same_process(
    tmp_path: Path, pidfd: int, known_as: str | None, error: type[Exception]
) -> None:
    if known_as is not None:
        known_as = {"ME": str(ME), "ANOTHER": str(ME + 1)}.get(known_as, known_as)
        text = f"pos:\t0\nPid:\t{known_as}\nNSpid:\t{known_as}\n"
        write_file(tmp_path, f"proc/self/fdinfo/{pidfd}", text)
    with pytest.raises(error) as raised:
        access.check_proc(ME, pidfd, tmp_path)
    assert type(raised.value) is error
    if known_as == str(ME):
        (tmp_path / f"proc/{ME}").mkdir()
        access.check_proc(ME, pidfd, tmp_path)


@pytest.mark.parametrize(
    ("number", "mode", "words"),
    [
        (errno.EPERM, 2, "seccomp filter denies move_pages(2) to this process (EPERM)"),
        (errno.ENOSYS, 2, "seccomp filter denies move_pages(2) to this process (ENOSYS)"),
        (errno.ENOSYS, 0, "this kernel has no move_pages(2)"),
        (errno.EACCES, 0, "a security module denies move_pages(2)"),
    ],
)
def test_a_call_that_is_always_denied_names_what_denies_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, mode: int, words: str
) -> None:
    def deny(_: int) -> None:
        raise OSError(number, os.strerror(number))

    write_file(tmp_path, "proc/self/status", f"Name:\tx\nSeccomp:\t{mode}\nSeccomp_filters:\t1\n")
    monkeypatch.setattr(_core, "check_access", deny)
    refusal = access.attach_error(ME, number, tmp_path)
    assert isinstance(refusal, RefusedError)
    assert words in str(refusal)
    assert ": " in str(refusal), "says what to do"


def test_a_permission_that_is_missing_for_one_process_only() -> None:
    for number in (errno.EPERM, errno.EACCES):
        assert isinstance(access.attach_error(ME, number, Path("/")), NoPermissionError)
