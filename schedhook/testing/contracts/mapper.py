"""What every mapper must do, as tests."""

from __future__ import annotations

import pytest

from schedhook.host.topology import Node, Topology
from schedhook.testing.contracts.plugin import PluginContract
from schedhook.values.errors import UsageError
from schedhook.values.model import NodeMap
from schedhook.values.sets import NodeSet


class MapperContract(PluginContract):
    """For every mapper: what the pipeline relies on, on a host with nodes 0 to 8 and 63."""

    def map(self, old: str, new: str) -> NodeMap:
        topology = Topology(
            nodes={
                number: Node(number=number, distances={number: 10}) for number in (*range(9), 63)
            }
        )
        mapper = self.loaded().mapper(self.name)
        return mapper.map(NodeSet.parse(old), NodeSet.parse(new), topology)

    def test_it_has_a_summary(self) -> None:
        assert self.loaded().mapper(self.name).summary

    @pytest.mark.parametrize(
        ("old", "new"),
        [("0", "1"), ("0-1", "2-3"), ("0-3", "2"), ("1", "4-7"), ("0-3", "2-5"), ("3,63", "0,5")],
    )
    def test_every_old_node_leads_to_a_new_one_or_stays(self, old: str, new: str) -> None:
        pairs = self.map(old, new).pairs
        assert NodeSet(pairs) >= NodeSet.parse(old)
        for source, destination in pairs.items():
            assert destination in NodeSet.parse(new) or destination == source

    def test_the_same_nodes_give_the_same_map(self) -> None:
        assert self.map("0-3", "2-5").pairs == self.map("0-3", "2-5").pairs

    @pytest.mark.parametrize(("old", "new"), [("", "1"), ("1", "")])
    def test_an_empty_set_is_an_error(self, old: str, new: str) -> None:
        with pytest.raises(UsageError):
            self.map(old, new)
