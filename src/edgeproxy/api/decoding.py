"""Decodes the body of a request into its type, or names the field that is wrong.

A field that is there twice is a fault: parsers differ in which of the two they take, so what a
proxy in front has checked may not be what is stored.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TypeVar

import msgspec

from edgeproxy.api.fault import FaultError
from edgeproxy.core.backends.rows import ALLOWED_REGION

T = TypeVar("T")

_NAMED = re.compile(r"(required|unknown) field `([^`]{1,64})")
_EXPECTED = re.compile(r"Expected (.+?)(?:, got (.+?))?(?: - at `\$\.(\w+)[^`]*`)?", re.DOTALL)
_TYPE = re.compile(r"`([a-z0-9 |]+)`")
_WORDS = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number with a fraction",
    "int": "an integer",
    "object": "an object",
    "str": "a text",
}
"""Types of JSON, by their names in the messages of msgspec."""


def body_of(body: bytes, kind: type[T]) -> T:
    """Return the decoded body. Raises FaultError."""
    if not body:
        raise FaultError(400, "the body is empty: it has to be an object in JSON")
    try:
        decoded = msgspec.json.decode(body, type=kind)
        json.loads(body, object_pairs_hook=_once)
    except msgspec.ValidationError as error:
        raise _fault(str(error), kind) from None
    except (msgspec.DecodeError, ValueError) as error:
        raise FaultError(400, f"the body is not valid JSON: {str(error)[:200]}") from None
    except RecursionError:
        raise FaultError(400, "the body is nested too deeply") from None
    return decoded


def _fault(text: str, kind: type) -> FaultError:
    """Return the fault that a message of msgspec tells."""
    if named := _NAMED.search(text):
        reason = f"the field `{named[2]}` is missing"
        if named[1] == "unknown":
            names = ", ".join(each.name for each in msgspec.structs.fields(kind))
            reason = f"there is no field `{named[2]}`; the fields are {names}"
        return FaultError(400, reason, named[2])
    expected = _EXPECTED.fullmatch(text)
    if expected is None:
        return FaultError(400, text[:400])
    what, got, field = expected.groups()
    if " matching regex " in what:  # of a region alone
        return FaultError(400, f"region is not allowed: {ALLOWED_REGION}", field)
    reason = f"{field or 'the body'} has to be {_in_words(what)}"
    return FaultError(400, f"{reason}, not {_in_words(got)}" if got else reason, field)


def _in_words(types: str) -> str:
    """Return what msgspec calls `int | null`, or `int` <= 65535, in words."""

    def word(found: re.Match[str]) -> str:
        return " or ".join(_WORDS.get(name, name) for name in found[1].split(" | "))

    text = _TYPE.sub(word, types).replace(" of length >= 1", " that is not empty")
    text = re.sub(r" of length <= (\d+)", r" of at most \1 characters", text)
    return text.replace(" <= ", " of at most ").replace(" >= ", " of at least ")


def _once(pairs: list[tuple[str, object]]) -> None:
    """Refuse an object that has a field twice."""
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise FaultError(400, f"the field `{name}` is there {count} times", name)
