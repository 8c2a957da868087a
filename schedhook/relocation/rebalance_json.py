"""A rebalance as JSON, as `rebalance --json` prints it. Sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from schedhook.relocation.rebalance import Rebalance
from schedhook.values.report_json import report_to_dict


def rebalance_to_dict(
    result: Rebalance, schedulers: Sequence[str | None], left_alone: Mapping[tuple[str, str], str]
) -> dict[str, Any]:
    """Return the object; `schedulers` are those of the reports.

    `left_alone` says why, of each job (scheduler, id) that was.
    """
    names = [
        {"scheduler": scheduler, "job": report.job}
        for scheduler, report in zip(schedulers, result.reports, strict=True)
    ]
    return {
        "matrix": [
            {**name, "from": old, "to": new, "bytes": size}
            for name, moves in zip(names, result.moves, strict=True)
            for (old, new), size in sorted(moves.items())
        ],
        "order": [
            {
                **names[each.demand.job],
                "from": each.demand.old,
                "to": each.to,
                "home": each.demand.new,
                "bytes": each.size,
            }
            for each in result.chunks
        ],
        "jobs": [
            {"scheduler": name["scheduler"], **report_to_dict(report)}
            for name, report in zip(names, result.reports, strict=True)
        ],
        "left_alone": [
            {"scheduler": name, "job": job, "why": why} for (name, job), why in left_alone.items()
        ],
    }
