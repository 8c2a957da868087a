"""slurm.conf: where it is, and what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from schedhook.testing.hosts import write_file, write_process
from schedhook_plugins.schedulers.slurm.configuration import (
    USUAL,
    find_configuration,
    is_yes,
    last,
    plugin_names,
    read_settings,
)

PROJECT = Path(__file__).parents[5]


@pytest.mark.parametrize("name", USUAL)
def test_it_is_found_in_each_usual_place(tmp_path: Path, name: str) -> None:
    assert find_configuration(tmp_path) is None
    write_file(tmp_path, name, "ClusterName=c\n")
    assert find_configuration(tmp_path) == tmp_path / name


def test_a_file_of_its_own_counts_more_than_what_the_controller_sent(tmp_path: Path) -> None:
    for name in USUAL:
        write_file(tmp_path, name, "")
    assert find_configuration(tmp_path) == tmp_path / "etc/slurm/slurm.conf"


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        ([b"slurmd", b"-D", b"-f", b"/site/slurm.conf"], b""),
        ([b"slurmd", b"-f/site/slurm.conf"], b""),
        ([b"slurmd"], b"PATH=/bin\0SLURM_CONF=/site/slurm.conf\0"),
    ],
)
def test_what_the_running_slurmd_was_told_counts_most(
    tmp_path: Path, arguments: list[bytes], environment: bytes
) -> None:
    write_file(tmp_path, "etc/slurm/slurm.conf", "")
    write_file(tmp_path, "site/slurm.conf", "")
    write_process(tmp_path, 5, name=b"slurmd", arguments=arguments)
    write_file(tmp_path, "proc/5/environ", environment)
    assert find_configuration(tmp_path) == tmp_path / "site/slurm.conf"


def test_a_users_process_that_calls_itself_slurmd_is_not_believed(tmp_path: Path) -> None:
    write_file(tmp_path, "etc/slurm/slurm.conf", "")
    write_file(tmp_path, "home/u/slurm.conf", "")
    arguments = [b"slurmd", b"-f", b"/home/u/slurm.conf"]
    write_process(tmp_path, 5, name=b"slurmd", arguments=arguments, uid=1001)
    write_process(tmp_path, 6, name=b"other", arguments=arguments)
    assert find_configuration(tmp_path) == tmp_path / "etc/slurm/slurm.conf"


def test_the_installer_of_the_hooks_looks_in_the_same_places() -> None:
    text = (PROJECT / "contrib/slurm/install").read_text()
    listed = re.findall(r'"/([a-z/-]+/slurm\.conf)"', text)
    assert tuple(listed) == USUAL


def test_a_line_may_have_several_parameters_quotes_and_a_comment(tmp_path: Path) -> None:
    text = """
    ProctrackType=proctrack/cgroup TaskPlugin="task/cgroup,task/affinity"  # Prolog=/x
    NodeName=n[1-4] CPUs=4 Prolog=/not/this
    epilog = /etc/epilog
    Epilog=/etc/\\
epilog2
    Broken
    """
    write_file(tmp_path, "slurm.conf", text)
    assert read_settings(tmp_path / "slurm.conf") == {
        "proctracktype": ["proctrack/cgroup"],
        "taskplugin": ["task/cgroup,task/affinity"],
        "nodename": ["n[1-4]"],
        "epilog": ["/etc/epilog", "/etc/epilog2"],
    }
    assert last(read_settings(tmp_path / "slurm.conf"), "Epilog") == "/etc/epilog2"


def test_a_file_that_includes_itself_is_read_only_a_few_times(tmp_path: Path) -> None:
    write_file(tmp_path, "slurm.conf", "A=1\nInclude slurm.conf\nInclude /nowhere\n")
    assert set(read_settings(tmp_path / "slurm.conf")) == {"a"}


def test_the_prefix_of_a_plugin_is_optional() -> None:
    for value in ("task/cgroup,task/affinity", "cgroup,affinity", "cgroup, task/affinity,"):
        assert plugin_names(value, "task") == ["cgroup", "affinity"]
    assert plugin_names("", "task") == []


def test_booleans_are_slurms() -> None:
    assert all(map(is_yes, ("yes", "YES", "up", "true", "True", "1")))
    assert not any(map(is_yes, ("no", "down", "false", "0", "", "on")))
