"""What every backend must do on a host with two nodes or more, as tests."""

from __future__ import annotations

import pytest

from schedhook.roles.backend import Backend, Target
from schedhook.testing.contracts.one_node import Subject
from schedhook.testing.contracts.page_plans import PagePlanContract
from schedhook.testing.contracts.sweeps import SweepContract
from schedhook.values.sets import NodeSet


class BackendContract(SweepContract, PagePlanContract):
    """For every backend: `OneNodeContract`, sweeps, page plans and migrations."""

    nodes = (0, 1)

    def test_a_migration_moves_all(self, subject: Subject, target: Target) -> None:
        """Linux 7.2 also counts a page of the vDSO's data, which no process's memory contains."""
        old, new = self.nodes[:2]
        assert target.migrate(NodeSet({old}), NodeSet({new})) <= 1
        assert subject.residency() == {new: subject.end - subject.start}

    def test_a_migration_pairs_nodes_in_order(self, backend: Backend) -> None:
        if len(self.nodes) < 4:
            pytest.skip("needs four nodes")
        layout = [self.nodes[0]] * 10 + [self.nodes[1]] * 20
        with (
            self.make_process(backend, nodes=layout) as subject,
            backend.attach(subject.pid) as target,
        ):
            target.migrate(NodeSet(self.nodes[:2]), NodeSet(self.nodes[2:4]))
            unit = subject.unit
            assert subject.residency() == {self.nodes[2]: 10 * unit, self.nodes[3]: 20 * unit}
