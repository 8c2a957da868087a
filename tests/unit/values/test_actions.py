"""[actions]: tables for some jobs, rules, and what a job has chosen."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from schedhook.values.actions import (
    Actions,
    ActionsSection,
    AnyNode,
    Choice,
    JobFacts,
    OnRelocation,
    OnSharedProcessors,
    Repatriate,
)
from schedhook.values.config import parse_config
from schedhook.values.errors import ConfigError
from schedhook.values.sets import NodeSet

SLURM = JobFacts(scheduler="slurm")
GPU = JobFacts(scheduler="slurm", queue="gpu", account="cfd", user=frozenset({"1001", "alice"}))


def actions(text: str) -> ActionsSection:
    return parse_config(text, Path("c.toml")).actions


def test_actions_of_a_scheduler_complete_its_table_by_the_common_one() -> None:
    section = actions(
        '[actions]\npark = "2-3"\nrepatriate = "never"\n[actions.pbs]\npark = "any"\n'
    )
    pbs, slurm = section.of(JobFacts(scheduler="pbs")), section.of(SLURM)
    assert (pbs.park, slurm.park) == (AnyNode.ANY, NodeSet({2, 3}))
    assert (pbs.repatriate, slurm.repatriate) == (Repatriate.NEVER, Repatriate.NEVER)
    assert pbs.on_shared_processors is OnSharedProcessors.REPORT
    assert slurm.on_shared_processors is OnSharedProcessors.LEAVE
    assert section.of(JobFacts(scheduler="another")) == slurm


@pytest.mark.parametrize(
    ("names", "fits"),
    [
        ('partitions = ["gpu"]', True),
        ('partitions = ["debug", "gpu"]', True),
        ('partitions = ["debug"]', False),
        ('queues = ["gpu"]', True),
        ('accounts = ["cfd"]', True),
        ('accounts = ["chem"]', False),
        ('users = ["alice"]', True),
        ('users = ["1001"]', True),
        ('users = ["bob"]', False),
        ('schedulers = ["slurm"]', True),
        ('schedulers = ["pbs"]', False),
        ('partitions = ["gpu"]\nusers = ["alice"]', True),
        ('partitions = ["gpu"]\nusers = ["bob"]', False),
    ],
)
def test_a_rule_is_for_the_jobs_that_all_its_lists_name(names: str, fits: bool) -> None:
    section = actions(f'[[actions.rules]]\n{names}\npark = "any"\n')
    assert (section.of(GPU).park == AnyNode.ANY) is fits
    nothing_known = section.of(SLURM).park == AnyNode.ANY
    assert nothing_known is (names == 'schedulers = ["slurm"]')


def test_every_rule_that_fits_applies_and_a_later_one_wins() -> None:
    section = actions(
        '[actions]\nrepatriate = "report"\n[actions.slurm]\npark = "3"\n'
        '[[actions.rules]]\naccounts = ["cfd"]\npark = "any"\npark_after_s = 60\n'
        '[[actions.rules]]\nusers = ["alice"]\npark = "2"\n'
    )
    its = section.of(GPU)
    assert (its.park, its.park_after_s) == (NodeSet({2}), 60)
    assert its.repatriate is Repatriate.REPORT
    assert section.of(SLURM).park == NodeSet({3})


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            'partition = ["x"]\npark = "any"',
            "actions.rules[1].partition: no such key; did you mean partitions? allowed here: ",
        ),
        (
            'users = ["x"]\nparc = "any"',
            "actions.rules[1].parc: no such key; did you mean park? allowed here: ",
        ),
        ('users = "x"\npark = "any"', "actions.rules[1].users: must be a list, in [ ], not 'x'"),
        (
            'users = ["x"]\nchoice = "never"',
            "actions.rules[1].choice: must be one of off, gentle, follow, not 'never'",
        ),
        ('park = "any"', "actions.rules[1]: names no jobs: set at least one of schedulers, "),
        ('users = ["x"]', "actions.rules[1]: changes nothing: set at least one of choice, "),
    ],
)
def test_a_rule_that_is_wrong_is_named_with_the_remedy(rule: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        actions(f"[[actions.rules]]\n{rule}\n")
    assert str(caught.value).startswith(f"c.toml: {message}")


def test_rules_are_tables() -> None:
    for text in ('[actions]\nrules = "x"\n', "[actions.rules]\n", "[actions]\nrules = [1]\n"):
        with pytest.raises(ConfigError, match=r"actions.rules: must be tables, each under \[\[act"):
            actions(text)


EVERYTHING = (
    '[actions]\npark = "any"\npark_after_s = 7\nrepatriate = "all"\nrepatriate_least_mb = 1\n'
    '[actions.pbs]\non_shared_processors = "replace"\n'
)
STILL = Actions(
    on_relocation=OnRelocation.NONE,
    repatriate=Repatriate.NEVER,
    on_shared_processors=OnSharedProcessors.REPORT,
)
"""What moves nothing."""


@pytest.mark.parametrize("by_site", [False, True])
def test_off_leaves_no_action_that_moves_memory(by_site: bool) -> None:
    pbs = JobFacts(scheduler="pbs")
    section = actions(EVERYTHING)
    its = section.of(pbs, Choice.OFF)
    if by_site:
        rule = '[[actions.rules]]\nschedulers = ["pbs"]\nchoice = "off"\n'
        its = actions(EVERYTHING + rule).of(pbs)
    assert its.is_off
    about = {"choice", "job_choices", "is_jobs_own"}
    for each in fields(Actions):
        if each.name not in about:
            assert getattr(its, each.name) == getattr(STILL, each.name), each.name
    assert section.of(pbs).park == AnyNode.ANY, "another job's are untouched"


def test_gentle_and_follow_let_memory_follow_where_the_site_would_not() -> None:
    section = actions('[actions]\non_relocation = "none"\npark = "3"\n')
    assert section.of(SLURM).on_relocation is OnRelocation.NONE
    for choice in (Choice.GENTLE, Choice.FOLLOW):
        its = section.of(SLURM, choice)
        assert its.on_relocation is OnRelocation.FOLLOW
        assert its.is_gentle is (choice is Choice.GENTLE)
        assert its.park == NodeSet({3})


def test_a_job_may_choose_only_what_the_site_lets_it() -> None:
    section = actions(
        '[actions.slurm]\nchoice = "off"\njob_choices = ["gentle"]\n'
        '[[actions.rules]]\npartitions = ["gpu"]\njob_choices = []\n'
    )
    assert section.of(SLURM, Choice.GENTLE).is_gentle
    assert section.of(SLURM, Choice.FOLLOW).is_off
    assert section.of(GPU, Choice.GENTLE).is_off


def test_the_reason_says_who_chose() -> None:
    assert ActionsSection().of(SLURM).reason == "as configured"
    assert actions('[actions.slurm]\nchoice = "off"\n').of(SLURM).reason == (
        'as configured (choice = "off")'
    )
    assert ActionsSection().of(SLURM, Choice.OFF).reason == "as the job chose (SCHEDHOOK=off)"
