"""One tier on every kind of host: each kernel, clean and dirty, without NUMA balancing and with."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

from tests.balancing import STATES
from tests.vm import machine, tiers


def run(path: Path, kernels: Sequence[Path], *, seconds: float, setup: machine.Setup) -> int:
    """Run a tier on each kind of host; print the counts; return 0 if all tests passed.

    ``kernels`` come in addition to the kernel of ``setup``. Guests run side by side, as those of
    `tiers.test` do.
    """
    kernel_of = {}
    for kernel in (setup.kernel or machine.own_kernel(setup.root), *kernels):
        for dirty, balancing in itertools.product((False, True), STATES[::-1]):
            version = kernel.name.removeprefix("vmlinuz-")
            state = "dirty" if dirty else "clean"
            tier = tiers.Tier(
                path=path,
                name=f"{path.name}-{version}-{state}-balancing-{balancing}",
                options=("--thorough", f"--balancing={balancing}", *(["--dirty"] if dirty else [])),
                root=setup.root,
            )
            kernel_of[tier] = kernel

    def passes(tier: tiers.Tier) -> bool:
        on_its_kernel = dataclasses.replace(setup, kernel=kernel_of[tier])
        return tiers.run(tier, seconds=seconds, nodes=None, setup=on_its_kernel)

    tiers.side_by_side(passes, list(kernel_of), tiers.guests_at_a_time(setup.shape))
    names = [tier.name for tier in kernel_of]
    status = tiers.summary(names)
    print("\n".join(tiers.table(names)))
    return status
