"""Identity, rights and placement of a process."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schedhook.host import _proc, processes, smaps
from schedhook.testing.hosts import PAGE, FakeArea, FakeNode, write_file, write_host, write_process
from schedhook.values.errors import ProcessGoneError, SchedhookError
from schedhook.values.sets import CpuSet, NodeSet

in_one_directory = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_status(tmp_path: Path) -> None:
    write_process(
        tmp_path,
        7,
        name=b"simulate",
        state="T",
        uid=1000,
        parent=5,
        threads={7: "T", 8: "S"},
        cpus="0-3,8",
        nodes="0,2",
        capabilities=1 << 23,
        areas=[
            FakeArea(start=PAGE, size=PAGE, pages={0: 1}),
            FakeArea(start=1 << 30, size=1 << 21, pages={0: 1}, page_size=1 << 21, is_huge=True),
        ],
    )
    assert processes.read_status(7, tmp_path) == processes.Status(
        name="simulate",
        state="T",
        tgid=7,
        parent=5,
        uid=1000,
        threads=2,
        allowed_cpus=CpuSet.parse("0-3,8"),
        allowed_nodes=NodeSet.parse("0,2"),
        cap_effective=1 << 23,
    )


def test_without_cpusets_every_online_node_is_allowed(tmp_path: Path) -> None:
    write_host(tmp_path, [FakeNode(number=0, cpus="0-1"), FakeNode(number=4, cpus="2")])
    write_file(tmp_path, "proc/7/status", "Name:\tx\nState:\tS (sleeping)\nUid:\t0\t0\t0\t0\n")
    status = processes.read_status(7, tmp_path)
    assert status.allowed_nodes == {0, 4}
    assert status.allowed_cpus == {0, 1, 2}


def test_an_invalid_status(tmp_path: Path) -> None:
    write_file(tmp_path, "proc/7/status", "nonsense\n")
    with pytest.raises(SchedhookError, match="proc/7/status"):
        processes.read_status(7, tmp_path)


@in_one_directory
@given(st.binary(max_size=15).filter(lambda name: b"\0" not in name), st.integers(0, 1 << 62))
def test_the_start_time_is_found_whatever_the_name(
    tmp_path: Path, name: bytes, start_time: int
) -> None:
    write_process(tmp_path, 7, name=name, start_time=start_time)
    identity = processes.read_identity(7, tmp_path)
    assert identity == processes.Identity(pid=7, start_time=start_time)
    assert not processes.is_kernel_thread(7, tmp_path)


def test_a_name_that_looks_like_the_rest_of_the_line(tmp_path: Path) -> None:
    write_process(tmp_path, 7, name=b"x) Z 1 (y", start_time=42)
    assert processes.read_identity(7, tmp_path).start_time == 42
    assert processes.live_task(7, tmp_path) == 7


def test_kernel_threads(tmp_path: Path) -> None:
    write_process(tmp_path, 2, name=b"kthreadd", kernel_thread=True)
    assert processes.is_kernel_thread(2, tmp_path)
    assert processes.read_command(2, tmp_path) == "[kthreadd]"


class TestCommand:
    def test_arguments(self, tmp_path: Path) -> None:
        write_process(tmp_path, 7, arguments=[b"/bin/solve", b"--steps", b"9", b"caf\xc3\xa9"])
        assert processes.read_command(7, tmp_path) == "/bin/solve --steps 9 café"

    def test_a_title_with_trailing_blanks(self, tmp_path: Path) -> None:
        write_process(tmp_path, 7, arguments=[b"server: idle", b"", b"", b""])
        assert processes.read_command(7, tmp_path) == "server: idle"

    def test_control_characters_are_escaped(self, tmp_path: Path) -> None:
        nasty = "\x1b[2J\r\n\u202e\u200b\x9b".encode() + b"\xff"
        write_process(tmp_path, 7, arguments=[nasty])
        expected = r"\x1b[2J\r\n\u202e\u200b\x9b\xff"
        assert processes.read_command(7, tmp_path) == expected

    def test_long_commands_are_truncated(self, tmp_path: Path) -> None:
        write_process(tmp_path, 7, arguments=[b"x" * 500])
        command = processes.read_command(7, tmp_path)
        assert len(command) == 80
        assert command.endswith("x…")

    @in_one_directory
    @given(st.lists(st.binary(max_size=40), max_size=4), st.binary(max_size=15))
    def test_always_one_short_printable_line(
        self, tmp_path: Path, arguments: list[bytes], name: bytes
    ) -> None:
        write_process(tmp_path, 7, arguments=arguments, name=name)
        command = processes.read_command(7, tmp_path)
        assert command.isprintable()
        assert len(command) <= 80


def test_threads_and_processes(tmp_path: Path) -> None:
    write_process(tmp_path, 70, threads={70: "S", 100: "S", 71: "S"})
    write_process(tmp_path, 9)
    write_file(tmp_path, "proc/meminfo", "")
    assert processes.thread_ids(70, tmp_path) == [70, 71, 100]
    assert processes.all_pids(tmp_path) == [9, 70]


def test_a_live_thread_is_found_behind_a_first_one_that_has_exited(tmp_path: Path) -> None:
    write_process(tmp_path, 7, state="Z", threads={7: "Z", 8: "Z", 9: "R"})
    assert processes.live_task(7, tmp_path) == 9
    write_process(tmp_path, 10, state="Z")
    with pytest.raises(ProcessGoneError, match="10"):
        processes.live_task(10, tmp_path)


@pytest.mark.parametrize(
    "reader",
    [
        processes.read_identity,
        processes.read_status,
        processes.read_command,
        processes.thread_ids,
        processes.is_kernel_thread,
        processes.live_task,
        processes.read_areas,
        smaps.read_pss,
    ],
)
def test_every_reader_reports_that_a_process_is_gone(tmp_path: Path, reader: object) -> None:
    assert callable(reader)
    write_process(tmp_path, 1)
    with pytest.raises(ProcessGoneError, match="12345"):
        reader(12345, tmp_path)


def test_a_host_without_proc(tmp_path: Path) -> None:
    with pytest.raises(SchedhookError, match="proc"):
        processes.all_pids(tmp_path)


def test_a_file_that_appears_belongs_to_another_process(tmp_path: Path) -> None:
    """The process has exited before the read, and another one has got its number."""
    write_process(tmp_path, 7)
    for name in ("stat", "task/8/stat", "task/7/stat"):
        with pytest.raises(ProcessGoneError), _proc.translated(7, name, tmp_path):
            raise FileNotFoundError
    with pytest.raises(_proc.MissingFileError), _proc.translated(7, "numbers", tmp_path):
        raise FileNotFoundError


def test_of_an_endless_command_line_only_the_beginning_is_read(tmp_path: Path) -> None:
    """A process can declare all of its memory to be its arguments (PR_SET_MM_MAP, prctl(2))."""
    write_process(tmp_path, 5, arguments=[b"app", b"x" * (32 << 20)])
    tracemalloc.start()
    command = processes.read_command(5, tmp_path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (command[:6], len(command)) == ("app xx", 80)
    assert most < 1 << 20
