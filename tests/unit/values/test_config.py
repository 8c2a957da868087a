"""The configuration file: the defaults, and the errors for a wrong file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from operator import attrgetter
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from schedhook.values import config as config_module
from schedhook.values.actions import ActionRule, AnyNode
from schedhook.values.config import Config, load_config, parse_config
from schedhook.values.errors import ConfigError
from schedhook.values.model import MemoryKind, Shared
from schedhook.values.sets import NodeSet

FILE = Path("/somewhere/config.toml")

EVERYTHING = """
[relocation]
strategy = "migrate-process"
mapper = "nearest"
backend = "simulated"
shared = "all"
kinds = ["anon", "huge"]
threads = 4
bandwidth_mb_s = 250.5
reserve_mb = 0
batch_kb = 4
call_ms = 20

[retry]
attempts = 1
first_wait_s = 0
longest_wait_s = 1.5
give_up_s = 10

[log]
format = "json"
level = "debug"

[plugins]
third_party = false
disabled = ["acme", "other"]

[plugins.options.acme]
colour = "blue"
depth = { least = 1 }
"""


def keys() -> Iterator[tuple[str, str, Any]]:
    """Yield (section, key, type) of every key; a section within one is called `outer.inner`."""
    yield from keys_of(Config, "")


def keys_of(section: type, prefix: str) -> Iterator[tuple[str, str, Any]]:
    hints = get_type_hints(section)
    for each in dataclasses.fields(section):
        hint = hints[each.name]
        if dataclasses.is_dataclass(hint):
            yield from keys_of(hint, f"{prefix}{each.name}.")
        elif prefix and hint != tuple[ActionRule, ...]:  # see test_actions
            yield prefix[:-1], each.name, hint


def with_key(section: str, key: str, value: Any) -> Config:
    """Return what `[section] key = value` makes of the defaults."""
    outer, _, inner = section.partition(".")
    changed = getattr(Config(), outer)
    if inner:
        its = dataclasses.replace(getattr(changed, inner), **{key: value})
        changed = dataclasses.replace(changed, **{inner: its})
    else:
        changed = dataclasses.replace(changed, **{key: value})
    return dataclasses.replace(Config(), source=FILE, **{outer: changed})


def complaint(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, FILE)
    message = str(caught.value)
    assert message.startswith(f"{FILE}: ")
    assert "\n" not in message
    return message.removeprefix(f"{FILE}: ")


def test_every_key_is_read() -> None:
    config = parse_config(EVERYTHING, FILE)
    assert config.relocation == config_module.RelocationSection(
        strategy="migrate-process",
        mapper="nearest",
        backend="simulated",
        shared=Shared.ALL,
        kinds=(MemoryKind.ANON, MemoryKind.HUGE),
        threads=4,
        bandwidth_mb_s=250.5,
        reserve_mb=0,
        batch_kb=4,
        call_ms=20.0,
    )
    assert config.retry == config_module.RetrySection(
        attempts=1, first_wait_s=0.0, longest_wait_s=1.5, give_up_s=10.0
    )
    assert (config.log.format, config.log.level) == ("json", "debug")
    assert not config.plugins.third_party
    assert config.plugins.disabled == ("acme", "other")
    assert config.plugins.options == {"acme": {"colour": "blue", "depth": {"least": 1}}}
    assert config.source == FILE
    assert isinstance(config.retry.give_up_s, float)


def another(hint: Any, default: Any) -> tuple[str, Any]:
    """Return a value other than the default, as TOML and as it must be read."""
    if isinstance(hint, UnionType):
        hint = next(each for each in get_args(hint) if each not in (AnyNode, NoneType))
        default = 0 if default is None else default
    if get_origin(hint) is tuple:
        text, value = another(get_args(hint)[0], None)
        return f"[{text}]", (value,)
    if get_origin(hint) is Mapping:
        return "{ acme = { depth = 1 } }", {"acme": {"depth": 1}}
    if issubclass(hint, StrEnum):
        value = next(each for each in hint if each != default)
        return f'"{value}"', value
    if hint is NodeSet:
        return '"0-2,77"', NodeSet({0, 1, 2, 77})
    if hint is str:
        return '"another"', "another"
    value = not default if hint is bool else default + 1
    return str(value).lower(), value


TEXTS = {"textfile": "x.prom", "listen": "[::1]:9793"}
"""A value of each text that must have a form."""
WITH_OTHERS = {"certificate": "listen", "key": "certificate", "client_ca": "certificate"}
"""Keys of [metrics] that mean nothing without the other."""


@pytest.mark.parametrize(
    ("section", "key", "hint"), [each for each in keys() if each[1] not in WITH_OTHERS]
)
def test_every_key_has_an_effect_on_itself_alone(section: str, key: str, hint: Any) -> None:
    text, value = another(hint, attrgetter(f"{section}.{key}")(Config()))
    if key in TEXTS:
        text, value = f'"{TEXTS[key]}"', TEXTS[key]
    config = parse_config(f"[{section}]\n{key} = {text}\n", FILE)
    assert config == with_key(section, key, value)
    assert config != dataclasses.replace(Config(), source=FILE)


def test_defaults() -> None:
    config = Config()
    assert config == dataclasses.replace(parse_config("", FILE), source=None)
    assert config.relocation.strategy == "move-pages"
    assert config.relocation.kinds == (
        MemoryKind.ANON,
        MemoryKind.FILE,
        MemoryKind.SHMEM,
        MemoryKind.HUGE,
    )
    assert config.retry.attempts == 5
    assert config.plugins.third_party


def test_a_file_may_set_only_some_keys() -> None:
    config = parse_config("[retry]\nattempts = 9\n", FILE)
    assert config.retry == config_module.RetrySection(attempts=9)
    assert config.relocation == Config().relocation


NUMBERS = [
    (section, key)
    for section, key, hint in keys()
    if {int, float} & {hint, *(get_args(hint) if isinstance(hint, UnionType) else ())}
]


@pytest.mark.parametrize(("section", "key"), NUMBERS)
def test_every_number_has_an_upper_bound(section: str, key: str) -> None:
    """Threads in milliards, and waits that no clock can hold, ended the agent with a traceback."""
    for value in ("100000000000", "1e300" if key.endswith(("_s", "_ms")) else "10" * 30):
        message = complaint(f"[{section}]\n{key} = {value}\n")
        assert message.startswith(f"{section}.{key}: must be a")


def test_a_textfile_that_node_exporter_would_ignore_is_an_error() -> None:
    message = complaint('[metrics]\ntextfile = "/var/lib/x/schedhook.txt"\n')
    assert message.startswith("metrics.textfile: must be the name of a file that ends in .prom")


@pytest.mark.parametrize(
    "address", ["9793", ":9793", "host", "host:http", "host:65536", "::1:9793 ", "a b:1", "[x]:1"]
)
def test_an_address_that_is_none_is_an_error(address: str) -> None:
    message = complaint(f'[metrics]\nlisten = "{address}"\n')
    assert message.startswith("metrics.listen: must be an address and a port, such as")


@pytest.mark.parametrize(("key", "other"), WITH_OTHERS.items())
def test_a_key_that_means_nothing_without_another_is_an_error(key: str, other: str) -> None:
    """An administrator who names `client_ca` must not serve everybody by mistake."""
    message = complaint(f'[metrics]\n{key} = "/x.pem"\n')
    assert message == f"metrics.{key}: needs {other}, which is not set"
    text = '[metrics]\nlisten = "h:1"\ncertificate = "/c.pem"\nkey = "/k"\nclient_ca = "/a"\n'
    assert parse_config(text, FILE).metrics.client_ca == "/a"


@pytest.mark.parametrize(("section", "key", "hint"), [*keys()])
def test_a_wrong_type_names_the_key_and_what_is_allowed(section: str, key: str, hint: Any) -> None:
    if isinstance(hint, UnionType):
        hint = next(each for each in get_args(hint) if each is not NoneType)
    if get_origin(hint) is tuple:
        wrong = ["7", '"anon"', "[7]", "{ a = 1 }"]
    elif hint is bool:
        wrong = ["1", "0", '"true"', "[]"]
    elif hint in (int, float):
        wrong = ["true", '"7"', "[7]", "-1", "inf", "nan", "1979-05-27"]
    elif hint is str:
        wrong = ["7", "true", '["a"]', "{ a = 1 }"]
    elif isinstance(hint, type) and issubclass(hint, StrEnum):
        wrong = ["7", '"other"', '["json"]', "true", "{ a = 1 }"]
    else:
        wrong = ["7", "{ a = 1 }", "[]"]
    for value in wrong:
        message = complaint(f"[{section}]\n{key} = {value}\n")
        assert message.startswith(f"{section}.{key}: must be ")
        assert ", not " in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[relocation]\nshared = "some"\n',
            "relocation.shared: must be one of none, job, all, not 'some'",
        ),
        (
            '[relocation]\nkinds = ["anon", "swap"]\n',
            "relocation.kinds: must be one of anon, file, shmem, huge, not 'swap'",
        ),
        (
            "[relocation]\nkinds = []\n",
            "relocation.kinds: must be a list with at least one entry, not []",
        ),
        ('[agent]\nspool = ""\n', "agent.spool: must be a text that is not empty, not ''"),
        ('[agent]\nsocket = ""\n', "agent.socket: must be a text that is not empty, not ''"),
        (
            '[journal]\npath = "a\\u0000b"\n',
            r"journal.path: must be a text, in quotes, not 'a\x00b'",
        ),
        ("[retry]\nattempts = 0\n", "retry.attempts: must be a number from 1 to 1000, not 0"),
        (
            "[relocation]\nthreads = 1.5\n",
            "relocation.threads: must be a whole number, not 1.5",
        ),
        ("retry = 3\n", "retry: must be a section, [retry], not 3"),
        ("[[retry]]\n", "retry: must be a section, [retry], not [{}]"),
        ("[plugins]\noptions = 1\n", "plugins.options: must be sections, [plugins.options.NAME]"),
        (
            "[retry]\nattemps = 3\n",
            "retry.attemps: no such key; did you mean attempts? "
            "allowed here: attempts, first_wait_s, longest_wait_s, give_up_s",
        ),
        (
            "[relocate]\n",
            "relocate: no such key; did you mean relocation? allowed here: relocation, retry, ",
        ),
        (
            "[actions.slurm]\non_shared_processors = 1\n",
            "actions.slurm.on_shared_processors: no such key; allowed here: choice, job_choices, ",
        ),
        (
            '[actions]\npark = "some"\n',
            'actions.park: must be nodes in quotes, such as "0-3,8", or "any", not \'some\'',
        ),
        ("[zzz]\n", "zzz: no such key; allowed here: relocation, "),
        ('source = "/etc/passwd"\n', "source: no such key; "),
        ("[retry\n", "not TOML: "),
        ("[retry]\nattempts = 1\nattempts = 2\n", "not TOML: "),
    ],
)
def test_errors_name_the_key_and_the_rule(text: str, expected: str) -> None:
    assert complaint(text).startswith(expected)


def test_exit_status_is_that_of_wrong_usage() -> None:
    assert ConfigError.exit_status == 2


# Which file


def test_the_default_file_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_module, "DEFAULT_PATH", tmp_path / "config.toml")
    assert load_config(environ={}) == Config()
    assert load_config(environ={"SCHEDHOOK_CONFIG": ""}) == Config()
    (tmp_path / "config.toml").write_text("[retry]\nattempts = 2\n")
    assert load_config(environ={}).retry.attempts == 2


def test_the_argument_wins_over_the_environment_and_that_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for attempts, name in enumerate(["default", "environment", "argument"], start=1):
        (tmp_path / name).write_text(f"[retry]\nattempts = {attempts}\n")
    monkeypatch.setattr(config_module, "DEFAULT_PATH", tmp_path / "default")
    environ = {"SCHEDHOOK_CONFIG": str(tmp_path / "environment")}
    assert load_config(environ={}).retry.attempts == 1
    assert load_config(environ=environ).retry.attempts == 2
    assert load_config(tmp_path / "argument", environ).retry.attempts == 3
    assert load_config(tmp_path / "argument", environ).source == tmp_path / "argument"


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    with pytest.raises(ConfigError, match=f"^{missing}: no such configuration file; create it"):
        load_config(missing, {})
    with pytest.raises(ConfigError, match=f"^{missing}: no such configuration file; create it"):
        load_config(environ={"SCHEDHOOK_CONFIG": str(missing)})


@pytest.mark.parametrize("is_default", [False, True])
def test_a_file_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_default: bool
) -> None:
    monkeypatch.setattr(config_module, "DEFAULT_PATH", tmp_path)
    with pytest.raises(
        ConfigError, match=f"^{tmp_path}: cannot be read: Is a directory; check what"
    ):
        load_config(None if is_default else tmp_path, {})


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b'[log]\nlevel = "\xff"\n')
    with pytest.raises(ConfigError, match="not UTF-8 at byte 15"):
        load_config(path, {})


def test_a_pipe_instead_of_the_file_is_an_error(tmp_path: Path) -> None:
    """A path given on the command line may be a pipe: the output of a program."""
    pipe = tmp_path / "config.toml"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="is a pipe"):
        load_config(environ={"SCHEDHOOK_CONFIG": str(pipe)})
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(pipe.write_text, "retry.attempts = 2")
        assert load_config(pipe).retry.attempts == 2
        written.result(10)
