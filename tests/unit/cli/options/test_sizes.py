"""Sizes and rates, with units and without."""

from __future__ import annotations

import pytest

from schedhook.cli.options.sizes import RateType, SizeType

RATE = RateType(min=0, min_open=True, max=1_000_000)


@pytest.mark.parametrize(
    ("text", "megabytes"),
    [
        ("500", 500),
        ("0.5", 0.5),
        ("1e3", 1000),
        ("100MB", 100),
        ("100 MB/s", 100),
        ("100M", 100),
        ("1.5GB/s", 1500),
        ("250k", 0.25),
        ("1MiB/s", 1.048576),
        ("1TB", 1_000_000),
    ],
)
def test_a_rate_is_in_megabytes_per_second(text: str, megabytes: float) -> None:
    assert RATE.convert(text, None, None) == megabytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512", 512 << 20),
        ("0", 0),
        ("1.5", 3 << 19),
        ("2G", 2 << 30),
        ("2g", 2 << 30),
        ("2 GiB", 2 << 30),
        ("2GB", 2_000_000_000),
        ("64K", 64 << 10),
        ("1024T", 1 << 50),
    ],
)
def test_a_size_is_in_bytes(text: str, size: int) -> None:
    assert SizeType().convert(text, None, None) == size
