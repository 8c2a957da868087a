"""`schedhook relocate`: reports, refusals and wrong usage, on made-up hosts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from schedhook.testing.hosts import FakeNode, write_host, write_process
from tests.unit.clikit import Run
from tests.unit.screenkit import AREA, MIB


def on(host: Path) -> list[object]:
    """Return the options for process 100 of the host."""
    return ["--root", host, "--backend", "simulated", "--pid", 100]


def test_a_relocation_on_a_simulated_host(run: Run, host: Path) -> None:
    status, out, _ = run("relocate", *on(host), "--map", "0:1,1:0", "--json")
    report = json.loads(out)
    assert (status, report["outcome"], report["mapper"]) == (0, "complete", "given")
    assert report["processes"][0]["residency_after"] == {"0": 4 * MIB, "1": 8 * MIB}


def test_a_refusal_is_on_standard_output_and_standard_error(run: Run, host: Path) -> None:
    status, out, err = run(
        "relocate", *on(host), "--from", 0, "--to", 2, "--reserve", 510, "--json"
    )
    assert status == 4
    assert json.loads(out)["outcome"] == "refused"
    assert "no room" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--from", "zero", "--to", "2"], 2, "zero"),
        (["--from", "3-1", "--to", "2"], 2, "descending"),
        (["--from", "", "--to", "2"], 2, "empty"),
        (["--from", "0"], 2, "--to"),
        (["--from", "0", "--to", "7"], 2, "node 7 is not online"),
        (["--map", "0:1:2"], 2, "0:1:2"),
        (["--map", "0:1", "--from", "0"], 2, "--map"),
        (["--from", "0", "--to", "2", "--strategy", "telepathy"], 2, "move-pages"),
        (["--from", "0", "--to", "2", "--mapper", "treasure"], 2, "nearest"),
        (["--from", "0", "--to", "2", "--kinds", "swap"], 2, "'swap' is no kind of memory; choose"),
        (["--from", "0", "--to", "2", "--job", "7"], 2, "one of --pid"),
        (["--from", "0", "--to", "2", "--pid", "101"], 1, "101"),
        (["--from", "0", "--to", "2", "--config", "/nonexistent.toml"], 2, "/nonexistent.toml"),
        (["--from", "0", "--to", "2", "--threads", "0"], 2, "--threads"),
        (["--from", "0", "--to", "2", "--threads", "9999999999"], 2, "1024"),
        (["--from", "0", "--to", "2", "--bandwidth", "nan"], 2, "not a finite number"),
        (["--from", "0", "--to", "2", "--bandwidth", "inf"], 2, "x<=1000000"),
        (["--from", "0", "--to", "2", "--bandwidth", "1e308"], 2, "x<=1000000"),
        (["--from", "0", "--to", "2", "--reserve", "9" * 400], 2, "is more than 1073741824 MiB"),
        (["--from", "0", "--to", "2", "--strategy", ""], 2, "'--strategy': it is empty"),
        (["--from", "0", "--to", "2", "--mapper", " "], 2, "'--mapper': it is empty"),
        (["--from", "0", "--to", "2", "--backend", ""], 2, "'--backend': it is empty"),
        (["--from", "0", "--to", "2", "--scheduler", ""], 2, "'--scheduler': it is empty"),
        (["--from", "0", "--to", "2", "--config", ""], 2, "'--config': it is empty"),
        (["--from", "0", "--to", "2", "--svg", ""], 2, "'--svg': it is empty"),
        (["--from", "!zero", "--to", "2"], 2, "zero"),
        (["--from", "!", "--to", "2"], 2, "empty"),
        (["--from", "!7", "--to", "2"], 2, "node 7 is not online"),
        (["--from", "0", "--to", "!2"], 2, "!2"),
        (["--home", "--to", "2"], 2, "leave out --to, --map and --cpus"),
        (["--home", "--map", "0:2"], 2, "leave out --to, --map and --cpus"),
        (["--home", "--cpus", "2"], 2, "leave out --to, --map and --cpus"),
        (["--home", "--all"], 2, "leave out --pid, --cgroup and --job"),
        (["--cpus", "2,9998-9999"], 2, "9998-9999 is online on this host; the online processors"),
    ],
)
def test_errors_are_one_line_and_have_their_status(
    run: Run, host: Path, arguments: list[str], status: int, words: str
) -> None:
    got, out, err = run("relocate", *on(host), *arguments)
    assert (got, out) == (status, "")
    assert err.startswith("schedhook: ")
    assert err.count("\n") == 1
    assert words in err


def test_without_processes_it_is_wrong_usage(run: Run) -> None:
    status, _, err = run("relocate", "--from", 0, "--to", 1)
    assert status == 2
    assert "--pid" in err


def test_a_host_with_one_node_has_nothing_to_do(run: Run, tmp_path: Path) -> None:
    write_host(tmp_path, nodes=[FakeNode(number=0)])
    write_process(tmp_path, 100, areas=[AREA], nodes="0-3")
    for to in (["--from", 0, "--to", 0], ["--home"]):
        status, out, _ = run("relocate", *on(tmp_path), *to)
        assert status == 0
        assert "nothing-to-do" in out
        assert "one NUMA node" in out


@pytest.mark.parametrize("nodes", [["--to", 1], ["--from", 1, "--to", 0], ["--map", "0:1"]])
def test_on_a_host_with_one_node_the_others_do_not_exist(
    run: Run, tmp_path: Path, nodes: list[object]
) -> None:
    write_host(tmp_path, nodes=[FakeNode(number=0)])
    write_process(tmp_path, 100, areas=[AREA], nodes="0-3")
    status, out, err = run("relocate", *on(tmp_path), *nodes)
    assert (status, out) == (2, "")
    assert "node 1 is not online" in err


def test_on_a_host_with_one_node_a_target_must_still_exist(run: Run, tmp_path: Path) -> None:
    write_host(tmp_path, nodes=[FakeNode(number=0)])
    relocate = ("relocate", "--root", tmp_path, "--backend", "simulated", "--from", 0, "--to", 0)
    for who, answer in {("--pid", 999): 1, ("--cgroup", "/absent"): 2, ("--job", 7): 2}.items():
        status, out, err = run(*relocate, *who)
        assert (status, out) == (answer, ""), who
        assert str(who[1]) in err


@pytest.mark.parametrize(
    ("sources", "moved"), [("!2", 12), ("!2-3", 12), ("!0,2", 4), ("!1", 8), ("!0-1", 0)]
)
def test_all_nodes_but_some(run: Run, host: Path, sources: str, moved: int) -> None:
    status, out, _ = run("relocate", *on(host), "--from", sources, "--to", 2, "--json")
    assert (status, json.loads(out)["bytes_moved"]) == (0, moved * MIB)


def test_memory_comes_home_in_one_word(run: Run, host: Path) -> None:
    status, out, _ = run("plan", *on(host), "--home", "--json")
    assert (status, json.loads(out)["bytes_planned"]) == (0, 4 * MIB)
    status, out, _ = run("relocate", *on(host), "--home", "--json")
    report = json.loads(out)
    assert (status, report["outcome"], report["bytes_moved"]) == (0, "complete", 4 * MIB)
    assert report["processes"][0]["residency_after"] == {"0": 12 * MIB}


def test_every_job_comes_home(run: Run, four: Path) -> None:
    words = ["--all", "--home", "--root", four, "--backend", "simulated"]
    status, out, _ = run("plan", *words, "--json")
    planned = {each["job"]: each["bytes_planned"] // MIB for each in json.loads(out)["jobs"]}
    assert status == 0
    assert planned == {"71": 0, "72": 1100, "73": 100 + 120 + 130}
    status, out, _ = run("relocate", *words, "--json")
    answer = json.loads(out)
    assert (status, answer["problems"]) == (0, [])
    moved = {each["job"]: each["bytes_moved"] // MIB for each in answer["jobs"]}
    assert moved == planned
    status, out, _ = run("relocate", *words)
    assert status == 0
    assert "slurm 72:" in out


def test_a_job_that_is_off_moves_by_a_command_that_names_it_and_by_no_other(
    run: Run, four: Path
) -> None:
    (four / "proc/7200/environ").write_bytes(b"SCHEDHOOK=off\0")
    words = ["--home", "--root", four, "--backend", "simulated"]
    status, out, _ = run("relocate", "--all", *words, "--json")
    reports = {each["job"]: each for each in json.loads(out)["jobs"]}
    assert (status, reports["73"]["outcome"]) == (0, "complete")
    assert (reports["72"]["outcome"], reports["72"]["bytes_moved"]) == ("nothing-to-do", 0)
    assert reports["72"]["notes"] == [
        "left alone, as the job chose (SCHEDHOOK=off); relocate --job 72 --home brings it home"
    ]
    for command, key in (("plan", "bytes_planned"), ("relocate", "bytes_moved")):
        status, out, _ = run(command, "--job", 72, *words, "--json")
        report = json.loads(out)
        assert (status, report[key]) == (0, 1100 * MIB)
        assert report["notes"][0] == (
            "job 72 is off, as the job chose (SCHEDHOOK=off): this command overrides it"
        )
    assert "this command overrides it" in run("relocate", "--job", 72, *words)[1]
    status, out, _ = run("relocate", "--job", 73, *words, "--json")
    assert "overrides" not in out


def test_one_job_that_is_refused_does_not_keep_the_others(run: Run, four: Path) -> None:
    meminfo = four / "sys/devices/system/node/node3/meminfo"
    meminfo.write_text(re.sub(r"MemFree: *\d+", "MemFree: 900", meminfo.read_text()))
    words = ["--all", "--home", "--root", four, "--backend", "simulated"]
    status, out, _ = run("relocate", *words, "--json")
    outcomes = {each["job"]: each["outcome"] for each in json.loads(out)["jobs"]}
    assert (status, outcomes) == (4, {"71": "nothing-to-do", "72": "refused", "73": "complete"})
    assert "trade places: schedhook rebalance" in run("relocate", *words)[1]


def test_all_is_for_home_only(run: Run, four: Path) -> None:
    status, _, err = run("relocate", "--all", "--to", 2, "--root", four)
    assert status == 2
    assert "--all is for --home" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", 2], "leave out --to"),
        (["--from", 7], "node 7 is not online"),
        (["--scheduler", "treasure"], "no scheduler is called 'treasure'"),
        (["--mapper", "treasure"], "no mapper is called 'treasure'"),
        (["--strategy", "telepathy"], "no strategy is called 'telepathy'"),
        (["--backend", "magic"], "no backend is called 'magic'"),
    ],
)
@pytest.mark.parametrize("with_jobs", [True, False])
def test_wrong_usage_for_all_jobs_is_said_once(
    run: Run, four: Path, arguments: list[object], words: str, with_jobs: bool
) -> None:
    backend = [] if "--backend" in arguments else ["--backend", "simulated"]
    choice = [] if with_jobs or "--scheduler" in arguments else ["--scheduler", "pbs"]
    status, out, err = run(
        "relocate", "--all", "--home", "--root", four, *backend, *choice, *arguments
    )
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_no_job_to_bring_home(run: Run, tmp_path: Path) -> None:
    write_host(tmp_path, nodes=[FakeNode(number=n, cpus=str(n)) for n in range(2)])
    assert run("relocate", "--all", "--home", "--root", tmp_path)[:2] == (
        0,
        "no job on this host\n",
    )


def test_relocating_as_json_imports_nothing_for_people() -> None:
    """Hooks and scripts read JSON; importing rich, tenacity and structlog would delay them."""
    code = (
        "import sys; from schedhook.cli.main import main;"
        "main(['relocate', '--pid', str(__import__('os').getpid()), '--from', '0', '--to', '0',"
        " '--json'], standalone_mode=False);"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["outcome"] == "nothing-to-do"
    assert not {"rich", "tenacity", "structlog", "sqlite3", "asyncio"} & set(done.stderr.split())
