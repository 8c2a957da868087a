"""Memory policies on the real kernel: which stay behind, and what a cpuset does to them.

Where new memory comes from, and which policies a process has, comes from the process itself and
from numa_maps, without the project's readers.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from schedhook.cli.main import main
from schedhook.values.policy import Policy, PolicyFlag, PolicyMode
from schedhook.values.sets import NodeSet
from tests.numa.bound import skip_without
from tests.numa.jobs import MIB, cgroup, numa_maps_of
from tests.numa.programs import program

pytestmark = pytest.mark.nodes(4)

STATIC, RELATIVE = PolicyFlag.STATIC, PolicyFlag.RELATIVE
SIZE = 8


class Program:
    """A running policies.c."""

    def __init__(
        self, prefix: Sequence[str] = (), cgroup: Path | None = None, cpus: str = "0-3"
    ) -> None:
        command = ["taskset", "-c", cpus, *prefix, str(program("policies"))]
        if cgroup is not None:
            join = f'echo $$ > {cgroup}/cgroup.procs && exec "$@"'
            command = ["/bin/sh", "-c", join, "sh", *command]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.pid = self.process.pid
        assert self._line() == "ready"
        self.threads = {0: self.pid}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.communicate()

    def say(self, *words: object) -> str:
        assert self.process.stdin
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        return self._line()

    def start_thread(self) -> int:
        """Return its number; its id is then in `threads`."""
        number, thread = map(int, self.say("thread").split())
        self.threads[number] = thread
        return number

    def set(self, thread: int, mode: int, *nodes: int) -> None:
        mask = sum(1 << node for node in nodes)
        assert self.say("set", thread, mode, mask) == "set"

    def policy(self, thread: int = 0) -> tuple[int, set[int]]:
        """Return the mode and nodes, as the thread itself reads them."""
        mode, mask = map(int, self.say("get", thread).split())
        return mode, {node for node in range(64) if mask >> node & 1}

    def new_memory(self, thread: int = 0) -> set[int]:
        """Return the nodes from which the thread's next memory comes."""
        return self.nodes_of(int(self.say("take", thread, SIZE), 16))

    def area(self, mode: int, *nodes: int) -> int:
        """Return the address of a new area with a policy of its own, not touched yet."""
        return int(self.say("area", mode, sum(1 << node for node in nodes), SIZE), 16)

    def touch(self, start: int) -> set[int]:
        """Touch an area and return its nodes."""
        assert self.say("touch", f"{start:x}", SIZE) == "touched"
        return self.nodes_of(start)

    def nodes_of(self, start: int) -> set[int]:
        return set(numa_maps_of(self.pid, start, start + 1))

    def numa_maps(self) -> str:
        return Path(f"/proc/{self.pid}/numa_maps").read_text()

    def _line(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, f"the program ended with {self.process.wait()}"
        return line.strip()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    config = tmp_path / "config.toml"
    config.write_text("[plugins.options.cpuset]\nallow_blocking = true\n")
    monkeypatch.setenv("SCHEDHOOK_CONFIG", str(config))

    def run(*words: object) -> dict[str, Any]:
        capsys.readouterr()
        main([*map(str, words), "--json"], standalone_mode=False)
        shown: dict[str, Any] = json.loads(capsys.readouterr().out)
        print(json.dumps(shown))
        return shown

    return run


AWAY = ("--from", "0", "--to", "2")


@pytest.mark.parametrize("strategy", ["move-pages", "migrate-process"])
def test_a_job_under_membind_allocates_on_its_old_node_again(run: Any, strategy: str) -> None:
    with Program(["numactl", "--membind=0"], cpus="2") as job:
        assert job.new_memory() == {0}
        plan = run("plan", "--pid", job.pid, *AWAY)
        assert plan["policies_left"]["threads"] == 1
        report = run("relocate", "--pid", job.pid, *AWAY, "--strategy", strategy)
        assert (report["outcome"], report["bytes_left"]) == ("complete", 0)
        assert report["policies_left"]["threads"] == 1
        assert report["policies_left"]["bytes"] >= SIZE * MIB
        assert any("of 1 thread and " in note and "bind:0" in note for note in report["notes"])
        assert job.new_memory() == {0}

        job.set(0, PolicyMode.DEFAULT)
        report = run("relocate", "--pid", job.pid, *AWAY)
        assert report["policies_left"] == {"threads": 0, "bytes": 0}
        assert job.new_memory() == {2}


@pytest.mark.parametrize(
    ("mode", "nodes", "left"),
    [
        (PolicyMode.BIND, "0", True),
        (PolicyMode.PREFERRED, "0", True),
        (PolicyMode.PREFERRED_MANY, "0", True),
        (PolicyMode.INTERLEAVE, "0,2", True),
        (PolicyMode.WEIGHTED_INTERLEAVE, "0,2", True),
        (PolicyMode.BIND | STATIC, "0", True),
        (PolicyMode.BIND | RELATIVE, "0", True),
        (PolicyMode.BIND, "2", False),
        (PolicyMode.PREFERRED, "3", False),
        (PolicyMode.INTERLEAVE, "1-3", False),
        (PolicyMode.LOCAL, "", False),
        (PolicyMode.DEFAULT, "", False),
    ],
)
def test_new_memory_comes_from_the_old_node_exactly_if_the_report_says_so(
    run: Any, mode: int, nodes: str, left: bool
) -> None:
    skip_without(mode)
    with Program(cpus="2") as job:
        thread = job.start_thread()
        job.set(thread, mode, *NodeSet.parse(nodes))
        report = run("relocate", "--pid", job.pid, *AWAY)
        assert report["policies_left"]["threads"] == left
        assert (0 in job.new_memory(thread)) == left
        assert job.new_memory(0) == {2}


def test_areas_with_a_policy_of_their_own(run: Any) -> None:
    with Program(cpus="2") as job:
        old = job.area(PolicyMode.BIND, 0)
        used = job.area(PolicyMode.PREFERRED, 0)
        assert job.touch(used) == {0}
        other = job.area(PolicyMode.BIND, 3)
        report = run("relocate", "--pid", job.pid, *AWAY)
        assert report["outcome"] == "complete"
        assert report["policies_left"] == {"threads": 0, "bytes": 2 * SIZE * MIB}
        assert (job.nodes_of(used), job.touch(old), job.touch(other)) == ({2}, {0}, {3})


def test_each_of_many_threads_is_read(run: Any) -> None:
    with Program(cpus="2") as job:
        numbers = [job.start_thread() for _ in range(450)]
        began = time.monotonic()
        assert run("plan", "--pid", job.pid, *AWAY)["policies_left"]["threads"] == 0
        print(f"450 threads: {time.monotonic() - began:.3f} s")
        job.set(numbers[77], PolicyMode.BIND, 0)
        job.set(numbers[378], PolicyMode.INTERLEAVE, 0, 1)
        job.set(numbers[400], PolicyMode.BIND, 1)
        assert run("plan", "--pid", job.pid, *AWAY)["policies_left"]["threads"] == 2
        seen = run("show", "--pid", job.pid)
        assert seen["off_node_policies"] == {"threads": 3, "bytes": 0}
        assert seen["processes"][0]["off_node_policies"] == [
            {"policy": policy, "threads": [job.threads[numbers[index]]], "bytes": 0}
            for policy, index in (("bind:0", 77), ("bind:1", 400), ("interleave:0-1", 378))
        ]


def test_reading_a_thread_costs_little_beside_a_process() -> None:
    """The kernel stops after the first areas: no walk through all page tables per thread."""
    with Program(cpus="2") as job:
        thread = job.threads[job.start_thread()]
        for _ in range(40):
            job.say("take", 0, SIZE)
        file = os.open(f"/proc/{job.pid}/task/{thread}/numa_maps", os.O_RDONLY)
        began = time.monotonic()
        assert os.read(file, 256)
        short = time.monotonic() - began
        os.close(file)
        began = time.monotonic()
        job.numa_maps()
        whole = time.monotonic() - began
        print(f"first areas {short * 1e6:.0f} us, all {whole * 1e6:.0f} us")
        assert short < whole / 4


# -- cpusets -------------------------------------------------------------------------------------


@pytest.mark.short(8)
@pytest.mark.parametrize(
    ("mode", "nodes"),
    [
        (PolicyMode.BIND, "3"),
        (PolicyMode.BIND, "1"),
        (PolicyMode.BIND, "0,2"),
        (PolicyMode.INTERLEAVE, "2-3"),
        (PolicyMode.WEIGHTED_INTERLEAVE, "0,3"),
        (PolicyMode.PREFERRED, "0"),
        (PolicyMode.PREFERRED, "3"),
        (PolicyMode.PREFERRED_MANY, "0,3"),
        (PolicyMode.BIND | STATIC, "0,3"),
        (PolicyMode.BIND | STATIC, "0"),
        (PolicyMode.BIND | RELATIVE, "1"),
        (PolicyMode.BIND | RELATIVE, "3"),
        (PolicyMode.INTERLEAVE | RELATIVE, "0-1"),
    ],
)
@pytest.mark.parametrize("after", ["1-3", "0,2-3", "1,3", "2"])
def test_what_a_cpuset_does_to_a_policy_is_foreseen(mode: int, nodes: str, after: str) -> None:
    skip_without(mode)
    with cgroup("fence") as fence:
        (fence / "cpuset.mems").write_text("0-3")
        with Program(cgroup=fence) as job:
            job.set(0, mode, *NodeSet.parse(nodes))
            was = Policy.parse(shown(job))
            foreseen = was.rebound(NodeSet.parse("0-3"), NodeSet.parse(after))
            (fence / "cpuset.mems").write_text(after)
            assert shown(job) == str(foreseen)
            (fence / "cpuset.mems").write_text("0-3")


def shown(job: Program) -> str:
    """Return the policy of the first thread in numa_maps."""
    words = job.numa_maps().splitlines()[0].split(" file=")[0].split(" ", 1)[1]
    return words.split(" anon")[0].split(" mapped")[0]


def test_no_policy_changes_that_the_map_does_not_name(run: Any) -> None:
    with cgroup("fence") as fence:
        (fence / "cpuset.mems").write_text("0-3")
        bound = ["numactl", "--membind=3"], ["numactl", "--membind=1"], ["numactl", "--membind=0"]
        with (
            Program(bound[0], cgroup=fence) as three,
            Program(bound[1], cgroup=fence) as one,
            Program(bound[2], cgroup=fence) as zero,
        ):
            memory = int(zero.say("take", 0, SIZE), 16)
            report = run("relocate", "--cgroup", fence, "--map", "0:2", "--strategy", "cpuset")
            assert report["outcome"] == "complete"
            assert zero.nodes_of(memory) == {2}
            assert (fence / "cpuset.mems").read_text().strip() == "0-3"
            assert three.policy() == (PolicyMode.BIND, {3})
            assert one.policy() == (PolicyMode.BIND, {1})
            assert report["policies_left"]["threads"] == 1
            said = next(note for note in report["notes"] if "left wide" in note)
            assert "bind:1 → bind:2" in said
            assert "bind:3 → bind:1" in said


def test_a_later_write_undoes_what_the_report_says(run: Any) -> None:
    with cgroup("fence") as fence:
        (fence / "cpuset.mems").write_text("0-1")
        with (
            Program(["numactl", "--membind=0"], cgroup=fence) as zero,
            Program(["numactl", "--membind=1"], cgroup=fence) as one,
        ):
            zero.say("take", 0, SIZE)
            report = run("relocate", "--cgroup", fence, "--map", "0:2,1:3", "--strategy", "cpuset")
            assert report["outcome"] == "complete"
            assert report["policies_left"] == {"threads": 0, "bytes": 0}
            assert (fence / "cpuset.mems").read_text().strip() == "2-3"
            assert (zero.policy(), one.policy()) == ((2, {2}), (2, {3}))
            assert (zero.new_memory(), one.new_memory()) == ({2}, {3})
            said = next(note for note in report["notes"] if "changes them back" in note)
            assert "bind:2 → bind:0" in said
            assert "bind:3 → bind:1" in said
            (fence / "cpuset.mems").write_text("0-1")
            assert (zero.policy(), one.policy()) == ((2, {0}), (2, {1}))


def test_a_wider_cpuset_that_would_change_policies_is_refused(run: Any) -> None:
    with cgroup("fence") as fence:
        (fence / "cpuset.mems").write_text("2-3")
        with Program(["numactl", "--membind=3"], cgroup=fence) as job:
            report = run("relocate", "--cgroup", fence, "--map", "2:0", "--strategy", "cpuset")
            assert report["outcome"] == "refused"
            assert "bind:3 → bind:2" in report["notes"][-1]
            assert (fence / "cpuset.mems").read_text().strip() == "2-3"
            assert job.policy() == (PolicyMode.BIND, {3})
