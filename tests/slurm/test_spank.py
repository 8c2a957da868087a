"""Slurm's option --relocation: the SPANK plug-in as `schedhook setup spank` builds it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from schedhook.cli.main import main
from tests.slurm.cluster import USER, Cluster, Unexpected


@pytest.fixture(scope="module")
def _plugin(slurm: Cluster) -> Iterator[None]:
    """Build the plug-in, and let Slurm load it."""
    directory = slurm.directory / "spank"
    assert main(["setup", "spank", "--directory", str(directory)], standalone_mode=False) == 0
    conf = slurm.conf.with_name("plugstack.conf")
    conf.write_text(f"required {directory}/schedhook.so\n")  # a fault must show
    yield
    conf.unlink()
    main(["setup", "spank", "--directory", str(directory), "--undo"], standalone_mode=False)
    assert not directory.exists()


pytestmark = pytest.mark.usefixtures("_plugin")


def srun(cluster: Cluster, *words: str) -> str:
    """Run a step of a job of its own on the first host, as the user."""
    return cluster.command("srun", "-n1", "-w", "n1", *words, user=USER)


@pytest.mark.parametrize("word", ["off", "gentle", "follow"])
def test_a_step_gets_the_users_choice(cluster: Cluster, word: str) -> None:
    assert f"SCHEDHOOK={word}\n" in srun(cluster, f"--relocation={word}", "env")


def test_without_the_option_nothing_changes(cluster: Cluster) -> None:
    assert "SCHEDHOOK" not in srun(cluster, "env")


def test_a_batch_job_and_its_steps_get_it(cluster: Cluster) -> None:
    script = "echo $SCHEDHOOK; srun printenv SCHEDHOOK; srun --relocation=off printenv SCHEDHOOK"
    out = cluster.run(script, "-n1", "-w", "n1", "--relocation=gentle")
    assert out.split() == ["gentle", "gentle", "off"]


def test_the_help_lists_it(cluster: Cluster) -> None:
    for command in ("srun", "sbatch", "salloc"):
        text = cluster.command(command, "--help")
        assert "--relocation=off|gentle|follow" in text
        assert "schedhook" in text


@pytest.mark.parametrize("command", ["srun true", "sbatch --wrap=true", "salloc true"])
def test_another_word_is_refused_in_one_line(cluster: Cluster, command: str) -> None:
    with pytest.raises(Unexpected) as error:
        name, *rest = command.split()
        cluster.command(name, "--relocation=of", "-n1", *rest, user=USER)
    text = str(error.value).partition(": ")[2]
    assert "\n" not in text
    assert "Invalid --relocation argument: of" in text
