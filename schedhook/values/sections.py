"""Read the tables of a TOML file into dataclasses, whose fields are the keys."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from schedhook.values.errors import ConfigError
from schedhook.values.sets import NodeSet
from schedhook.values.text import suggest

_Section = TypeVar("_Section")

NOT_A_KEY: Mapping[str, Any] = {"key": False}
"""The metadata of a field that is not a key of the file."""
NOT_EMPTY: Mapping[str, Any] = {"fill": True}
"""The metadata of a list that must have an entry, or of a text that must not be empty."""

_NODES = 'nodes in quotes, such as "0-3,8"'


def between(least: float, most: float, default: float | None) -> Any:
    """Return a field for a number from `least` to `most`.

    Every number has an upper bound: what no host has or needs overflows somewhere else.
    """
    return field(default=default, metadata={"least": least, "most": most})


def ending(suffix: str) -> Any:
    """Return a field for the name of a file with this ending, empty by default."""
    return field(default="", metadata={"suffix": suffix})


def matching(pattern: str, allowed: str) -> Any:
    """Return a field for a text that matches a regular expression, empty by default.

    `allowed` says in an error what the text must be.
    """
    return field(default="", metadata={"pattern": pattern, "allowed": allowed})


def needing(other: str) -> Any:
    """Return a field for a text, empty by default, that is an error without the key `other`."""
    return field(default="", metadata={"needs": other})


def read_section(
    section: type[_Section], table: Mapping[str, Any], source: str, prefix: str = ""
) -> _Section:
    """Return a table as an instance of the dataclass `section`.

    Keys that are missing get the fields' defaults. Raise ConfigError for an unknown key or a wrong
    value; it names `source`, the key behind `prefix`, and what is allowed.
    """
    assert is_dataclass(section)
    keys = {each.name: each for each in fields(section) if each.metadata.get("key", True)}
    hints = get_type_hints(section)
    values: dict[str, Any] = {}
    for name, value in table.items():
        key = _Key(source, f"{prefix}{name}")
        if name not in keys:
            raise ConfigError(f"{source}: {key.name}: {_unknown(name, keys)}")
        hint = hints[name]
        if isinstance(hint, type) and is_dataclass(hint):
            key.expect(isinstance(value, dict), f"a section, [{key.name}]", value)
            values[name] = read_section(hint, value, source, f"{key.name}.")
        else:
            values[name] = _convert(value, hint, key)
            _check_bounds(values[name], keys[name], key)
    for name, value in values.items():
        other = keys[name].metadata.get("needs")
        if value and other and not values.get(other):
            raise _Key(source, f"{prefix}{name}").wrong(f"needs {other}, which is not set")
    return section(**values)


def _read_tables(section: Any, value: Any, key: _Key) -> tuple[Any, ...]:
    """Return the entries of `[[name]]`. `explain_wrong` of one says why it is wrong, if it is."""
    is_tables = isinstance(value, list) and all(isinstance(each, dict) for each in value)
    key.expect(is_tables, f"tables, each under [[{key.name}]]", value)
    found = []
    for number, table in enumerate(value, 1):
        name = f"{key.name}[{number}]"
        found.append(read_section(section, table, key.source, f"{name}."))
        if why := found[-1].explain_wrong():
            raise _Key(key.source, name).wrong(why)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Key:
    """A key of the file, for errors."""

    source: str
    name: str

    def expect(self, holds: bool, allowed: str, value: Any) -> None:
        """Raise ConfigError unless the value is what is allowed."""
        if not holds:
            raise self.wrong(f"must be {allowed}, not {value!r}")

    def wrong(self, why: str) -> ConfigError:
        """Return the error for a wrong value."""
        return ConfigError(f"{self.source}: {self.name}: {why}")


def _convert(value: Any, hint: Any, key: _Key) -> Any:
    """Return `value` as the field's type. Raise ConfigError if it does not fit."""
    if isinstance(hint, UnionType):
        return _convert_either(value, get_args(hint), key)
    if get_origin(hint) is tuple:
        return _convert_list(value, get_args(hint)[0], key)
    if _is_enum(hint):
        choices = [str(choice) for choice in hint]
        key.expect(value in choices, "one of " + ", ".join(choices), value)
        return hint(value)
    if hint is NodeSet:
        return _convert_nodes(value, key, _NODES)
    if hint is float:
        return _convert_float(value, key)
    if hint is bool:
        key.expect(isinstance(value, bool), "true or false", value)
    elif hint is int:
        key.expect(type(value) is int, "a whole number", value)
    elif hint is str:
        is_text = isinstance(value, str) and "\0" not in value  # no path or name has a NUL
        key.expect(is_text, "a text, in quotes", value)
    else:
        is_tables = isinstance(value, dict) and all(isinstance(v, dict) for v in value.values())
        key.expect(is_tables, f"sections, [{key.name}.NAME]", value)
    return value


def _convert_list(value: Any, hint: Any, key: _Key) -> tuple[Any, ...]:
    if is_dataclass(hint):
        return _read_tables(hint, value, key)
    key.expect(isinstance(value, list), "a list, in [ ]", value)
    return tuple(_convert(item, hint, key) for item in value)


def _convert_either(value: Any, hints: Sequence[Any], key: _Key) -> Any:
    """Return the value as one of several types: nodes or a word, or None for a missing key."""
    given = [hint for hint in hints if hint is not NoneType]
    if NodeSet in given:
        words = {str(word): word for hint in given if _is_enum(hint) for word in hint}
        if isinstance(value, str) and value in words:
            return words[value]
        quoted = "".join(f', or "{word}"' for word in words)
        return _convert_nodes(value, key, _NODES + quoted)
    (hint,) = given
    return _convert(value, hint, key)


def _convert_nodes(value: Any, key: _Key, allowed: str) -> NodeSet:
    key.expect(isinstance(value, str), allowed, value)
    try:
        return NodeSet.parse(value)
    except ValueError:
        raise key.wrong(f"must be {allowed}, not {value!r}") from None


def _convert_float(value: Any, key: _Key) -> float:
    is_number = type(value) in (int, float) and abs(value) < math.inf
    key.expect(is_number, "a number", value)
    try:
        return float(value)
    except OverflowError:
        raise key.wrong("must be a smaller number") from None


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, StrEnum)


def _check_bounds(value: Any, each: Field[Any], key: _Key) -> None:
    if "least" in each.metadata:
        least, most = each.metadata["least"], each.metadata["most"]
        key.expect(least <= value <= most, f"a number from {least} to {most}", value)
    if suffix := each.metadata.get("suffix"):
        allowed = f"the name of a file that ends in {suffix}"
        key.expect(not value or value.endswith(suffix), allowed, value)
    if pattern := each.metadata.get("pattern"):
        fits = not value or re.fullmatch(pattern, value) is not None
        key.expect(fits, each.metadata["allowed"], value)
    if each.metadata.get("fill"):
        is_text = isinstance(value, str)
        allowed = "a text that is not empty" if is_text else "a list with at least one entry"
        key.expect(bool(value), allowed, value if is_text else list(value))


def _unknown(key: str, keys: Mapping[str, Field[Any]]) -> str:
    return suggest("no such key", key, keys, f"allowed here: {', '.join(keys)}")
