"""The check of ptrace(2), which is only made if it is needed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from schedhook.backends.native import _core
from schedhook.cli.doctor.policy_checks import check_policies
from schedhook.cli.doctor.setup import Setup
from schedhook.plugins.findings import Severity
from schedhook.plugins.manager import Plugins
from schedhook.values.config import Config, RelocationSection
from schedhook.values.model import Policies


def set_up(plugins: Plugins, policies: Policies) -> Setup:
    config = Config(relocation=RelocationSection(policies=policies))
    return Setup(config=config, plugins=plugins, root=Path("/"))


def test_policies_that_are_left_need_nothing(plugins: Plugins) -> None:
    assert list(check_policies(set_up(plugins, Policies.LEAVE))) == []


@pytest.mark.skipif(not _core.remote_restorers(), reason="not implemented for this architecture")
def test_it_works_here(plugins: Plugins) -> None:
    (finding,) = check_policies(set_up(plugins, Policies.REBIND))
    assert finding.level is Severity.OK


@pytest.mark.parametrize(
    ("number", "what"), [(errno.EPERM, "denied"), (errno.ENOSYS, "only x86-64")]
)
def test_it_does_not_work(
    number: int, what: str, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_core, "remote_stop", stop)
    (finding,) = check_policies(set_up(plugins, Policies.REBIND))
    assert finding.level is Severity.PROBLEM
    assert what in finding.what
