"""Descriptors, with the functions of Python and without them."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from schedhook.backends.native import descriptors
from schedhook.backends.native.object_file import kernel_devices


@pytest.fixture(params=["of Python", "of the C core"])
def functions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take from `os` what builds against an old C library lack."""
    if request.param == "of the C core":
        for name in ("pidfd_open", "memfd_create"):
            monkeypatch.delattr(os, name)
        for name in [name for name in dir(os) if name.startswith("MFD_")]:
            monkeypatch.delattr(os, name)


@pytest.mark.usefixtures("functions")
def test_a_pidfd_is_readable_once_its_process_has_ended() -> None:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as process:
        descriptor = descriptors.pidfd_open(process.pid)
        assert not os.get_inheritable(descriptor)
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        assert not poller.poll(0)
        process.kill()
        assert poller.poll(10_000)
    os.close(descriptor)


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize(("pid", "number"), [(0, errno.EINVAL), (1 << 30, errno.ESRCH)])
def test_the_error_is_that_of_the_kernel(pid: int, number: int) -> None:
    with pytest.raises(OSError, match=r"Errno") as caught:
        descriptors.pidfd_open(pid)
    assert caught.value.errno == number


@pytest.mark.usefixtures("functions")
def test_a_memfd_is_closed_on_exec_and_keeps_what_is_written() -> None:
    descriptor = descriptors.memfd_create("test")
    assert not os.get_inheritable(descriptor)
    assert os.readlink(f"/proc/self/fd/{descriptor}") == "/memfd:test (deleted)"  # noqa: PTH115
    os.write(descriptor, b"text")
    assert os.pread(descriptor, 9, 0) == b"text"
    os.close(descriptor)


@pytest.mark.usefixtures("functions")
def test_the_kernels_own_devices_are_found() -> None:
    kernel_devices.cache_clear()
    found = kernel_devices()
    kernel_devices.cache_clear()
    assert found == kernel_devices()
    assert found


def test_a_relocation_needs_none_of_them(tmp_path: Path) -> None:
    """`plan` reads a process of this host as it does with Python's own functions."""
    program = (
        "import os\n"
        "for name in ('pidfd_open', 'memfd_create'): delattr(os, name)\n"
        "import sys\n"
        "sys.argv = ['schedhook', 'show', '--pid', str(os.getppid()), '--json']\n"
        "from schedhook.cli.main import run\n"
        "run()"
    )
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")
