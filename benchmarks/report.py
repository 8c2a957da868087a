"""Results as a table, as JSON, and as plots (SVG, written by hand: no library is needed)."""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path
from typing import Any

from benchmarks.suite import Results, Series

WIDTH, HEIGHT, MARGIN = 480, 320, 56


def table(results: Results) -> str:
    """Return the table as text."""
    lines = [f"{'what':42} {'runs':>4} {'median':>9} {'least':>9} {'most':>9} {'GB/s':>7}"]
    for each in results.series.values():
        rate = f"{gigabytes(each):7.3f}" if each.mib else ""
        lines.append(
            f"{each.name:42} {len(each.values):4} {each.median:9.3f} {min(each.values):9.3f}"
            f" {max(each.values):9.3f} {rate} {each.unit if each.unit != 's' else ''}".rstrip()
        )
    lines += ["", f"{'ratio of medians':52} {'is':>7} {'at most':>8}"]
    for ratio in results.ratios:
        value = results.value(ratio)
        bound = f"{ratio.most:8.2f}" if ratio.most is not None else ""
        verdict = "" if ratio.most is None else ("  met" if value <= ratio.most else "  NOT MET")
        lines.append(f"{ratio.name:52} {value:7.3f} {bound}{verdict}")
    return "\n".join(lines)


def gigabytes(series: Series) -> float:
    """Return the rate in units of 1,000,000,000 bytes per second."""
    return series.mib * (1 << 20) / series.median / 1e9


def as_json(results: Results) -> dict[str, Any]:
    """Return all results as JSON."""
    return {
        "kernel": platform.release(),
        "series": [
            {"name": each.name, "unit": each.unit, "mib": each.mib, "values": each.values,
             "median": each.median, "spread": [min(each.values), max(each.values)]}
            for each in results.series.values()
        ],
        "ratios": [
            {"name": ratio.name, "value": results.value(ratio), "at_most": ratio.most}
            for ratio in results.ratios
        ],
    }  # fmt: skip


def points(results: Results, pattern: str) -> list[tuple[float, float]]:
    """Return (number in the name, median) of the series whose names match."""
    found = ((re.fullmatch(pattern, name), each) for name, each in results.series.items())
    return [(float(match[1]), each.median) for match, each in found if match]


def plot(title: str, below: str, found: list[tuple[float, float]]) -> str:
    """Return a line through the points as SVG, with both axes from zero."""
    right, top = max(x for x, _ in found), max(y for _, y in found)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            MARGIN + x / right * (WIDTH - 2 * MARGIN),
            HEIGHT - MARGIN - y / top * (HEIGHT - 2 * MARGIN),
        )

    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in found))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
        ' font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{WIDTH / 2}" y="24" text-anchor="middle" font-size="14">{title}</text>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 12}" text-anchor="middle">{below}</text>',
        f'<path d="M{MARGIN} {MARGIN}V{HEIGHT - MARGIN}H{WIDTH - MARGIN}" fill="none"'
        ' stroke="black"/>',
        f'<polyline points="{path}" fill="none" stroke="steelblue" stroke-width="2"/>',
    ]
    for x, y in found:
        left, up = place(x, y)
        parts += [
            f'<circle cx="{left:.1f}" cy="{up:.1f}" r="3" fill="steelblue"/>',
            f'<text x="{left:.1f}" y="{HEIGHT - MARGIN + 14}" text-anchor="middle">{x:g}</text>',
            f'<text x="{left:.1f}" y="{up - 8:.1f}" text-anchor="middle">{y:.2f} s</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def write(results: Results, directory: Path) -> None:
    """Write table.txt, results.json, and the plots of the parts that were measured."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "table.txt").write_text(table(results) + "\n")
    (directory / "results.json").write_text(json.dumps(as_json(results), indent=1) + "\n")
    for name, title, below, pattern in (
        ("size", "Time of a relocation by size", "MiB of small pages", r"(\d+) MiB"),
        ("threads", "Time of a relocation by threads", "threads", r"(\d+) threads"),
    ):
        if found := points(results, pattern):
            (directory / f"{name}.svg").write_text(plot(title, below, found))
