"""Where the agent makes its socket, and where it refuses to."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from schedhook.agent.sockets import listen, lock
from schedhook.values.errors import SchedhookError
from tests.users import NOBODY

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory to another user")


def test_no_socket_is_made_in_a_directory_that_others_may_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(SchedhookError, match="written by others"), lock(tmp_path / "agent.sock"):
        pass
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_no_socket_is_made_in_a_directory_of_another_user(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    with pytest.raises(SchedhookError, match="belongs to user 65534"), lock(tmp_path / "a.sock"):
        pass


def test_a_file_in_the_place_of_the_socket_is_not_replaced(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "agent.sock"
    for make in (lambda: path.symlink_to(victim), lambda: path.write_text("x"), path.mkdir):
        make()
        with pytest.raises(SchedhookError, match="is not a socket"):
            listen(path, 0o600)
        path.rmdir() if path.is_dir() else path.unlink()
    path.with_name("agent.sock.lock").symlink_to(victim)
    with pytest.raises(SchedhookError), lock(path):
        pass
    assert victim.read_text() == "precious"


def test_the_lock_that_a_killed_agents_child_still_has_is_waited_for(tmp_path: Path) -> None:
    """Between fork and execve a child has its parent's open files."""
    path = tmp_path / "agent.sock"
    handle = os.open(tmp_path / "agent.sock.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    child = os.fork()
    if child == 0:
        time.sleep(0.2)
        os._exit(0)
    os.close(handle)
    with lock(path):
        pass
    os.waitpid(child, 0)
