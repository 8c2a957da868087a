"""Run every check of `schedhook doctor`."""

from __future__ import annotations

from pathlib import Path

from schedhook.cli.doctor import (
    host_checks,
    kernel_checks,
    plugin_checks,
    policy_checks,
    service_checks,
)
from schedhook.cli.doctor.setup import Check, Setup
from schedhook.plugins.findings import Finding, problem
from schedhook.plugins.manager import Plugins
from schedhook.values.config import Config
from schedhook.values.errors import SchedhookError

CHECKS: tuple[Check, ...] = (
    host_checks.check_versions,
    host_checks.check_nodes,
    kernel_checks.check_capabilities,
    kernel_checks.check_calls,
    kernel_checks.check_balancing,
    policy_checks.check_policies,
    host_checks.check_cgroups,
    host_checks.check_processes,
    plugin_checks.check_loading,
    plugin_checks.check_choices,
    service_checks.check_agent,
    service_checks.check_spool,
    service_checks.check_journal,
    service_checks.check_rollback,
    service_checks.check_metrics,
    plugin_checks.check_by_plugins,
)
"""In the order of the findings."""


def examine(config: Config, plugins: Plugins, root: Path = Path("/")) -> list[Finding]:
    """Return what all checks find. If a check fails, that is a finding, too."""
    setup = Setup(config=config, plugins=plugins, root=root)
    findings: list[Finding] = []
    for check in CHECKS:
        try:
            findings += check(setup)
        except (SchedhookError, OSError, ValueError) as error:
            subject = check.__name__.removeprefix("check_")
            findings.append(
                problem(
                    subject,
                    str(error),
                    "fix the problem above and run doctor again; this group's remaining checks were"
                    " skipped",
                )
            )
    return findings
