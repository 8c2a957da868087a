"""Messages of hooks: made, read back, damaged."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedhook.hook import delivery
from schedhook.hook.message import parse_message
from schedhook.values.errors import UsageError
from tests.unit.agentkit import message


@given(
    environ=st.dictionaries(
        st.text(min_size=1)
        .filter(lambda name: "\0" not in name and "=" not in name)
        .map(lambda name: b"FAKE_" + name.encode("utf-8", "surrogatepass")),
        st.binary().filter(lambda value: b"\0" not in value),
    ),
    data=st.binary(),
    wait=st.booleans(),
)
def test_a_message_is_read_back_as_it_was_made(
    environ: dict[bytes, bytes], data: bytes, wait: bool
) -> None:
    read = parse_message(delivery.make_message("fake", "begin", environ, data, wait))
    assert (read.scheduler, read.point, read.wait, read.data) == ("fake", "begin", wait, data)
    back = {
        name.encode("utf-8", "surrogateescape"): value.encode("utf-8", "surrogateescape")
        for name, value in read.environ.items()
    }
    assert back == environ
    assert abs(read.at - time.time()) < 60


@given(st.binary())
def test_garbage_raises_only_usage_error(raw: bytes) -> None:
    with pytest.raises(UsageError):
        parse_message(raw)


@given(st.integers(0, 200), st.binary(min_size=1, max_size=3))
def test_a_corrupt_message_is_read_or_raises_usage_error(position: int, junk: bytes) -> None:
    whole = message("begin", "7")
    try:
        parse_message(whole[:position] + junk + whole[position + len(junk) :])
    except UsageError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("count", [b"-1", b"3", b"99999999999999999999", b"x", b""])
def test_a_wrong_count_of_variables_is_an_error(count: bytes) -> None:
    fields = [delivery.MAGIC, b"", b"1.0", b"fake", b"begin", count, b"FAKE_JOB=7", b""]
    with pytest.raises(UsageError):
        parse_message(b"\0".join(fields))


@pytest.mark.parametrize("at", [b"nan", b"inf", b"-1e300", b"1e300", b"0"])
def test_an_impossible_time_is_replaced_by_now(at: bytes) -> None:
    fields = [delivery.MAGIC, b"", at, b"fake", b"begin", b"0", b""]
    assert abs(parse_message(b"\0".join(fields)).at - time.time()) < 60


def test_an_oversized_message_is_neither_made_nor_read() -> None:
    with pytest.raises(delivery.NotDelivered):
        delivery.make_message("fake", "begin", {}, b"x" * delivery.MOST_BYTES, False)
    with pytest.raises(UsageError):
        parse_message(b"x" * (delivery.MOST_BYTES + 1))


def test_a_message_has_only_the_schedulers_variables_and_no_secrets() -> None:
    environ = {
        b"SLURM_JOB_ID": b"7",
        b"SLURM_JWT": b"secret",
        b"AWS_SECRET_ACCESS_KEY": b"secret",
        b"PATH": b"/bin",
    }
    raw = delivery.make_message("slurm", "prolog", environ, b"", False)
    assert parse_message(raw).environ == {"SLURM_JOB_ID": "7"}
    assert b"secret" not in raw


@pytest.mark.parametrize("name", ["../slurm", "a/b", "", "-x", "a b", "x" * 65, "ä"])
def test_invalid_names_of_schedulers_and_points_are_errors(name: str) -> None:
    for scheduler, point in ((name, "begin"), ("fake", name)):
        fields = [delivery.MAGIC, b"", b"1", scheduler.encode(), point.encode(), b"0", b""]
        with pytest.raises(UsageError):
            parse_message(b"\0".join(fields))
