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

_PATH = re.compile(r" - at `\$\.(\w+)")
_NAMED = re.compile(r"(?:required|unknown) field `([^`]{1,64})")


def body_of(body: bytes, kind: type[T]) -> T:
    """Return the decoded body. Raises FaultError."""
    try:
        decoded = msgspec.json.decode(body, type=kind)
        json.loads(body, object_pairs_hook=_once)
    except msgspec.ValidationError as error:
        text = str(error)
        named = _PATH.search(text) or _NAMED.search(text)
        if " matching regex " in text:  # of a region alone
            text = f"region is not allowed: {ALLOWED_REGION} - at `$.region`"
        raise FaultError(400, text[:400], named[1] if named else None) from None
    except (msgspec.DecodeError, ValueError) as error:
        raise FaultError(400, f"the body is not valid JSON: {str(error)[:200]}") from None
    except RecursionError:
        raise FaultError(400, "the body is nested too deeply") from None
    return decoded


def _once(pairs: list[tuple[str, object]]) -> None:
    """Refuse an object that has a field twice."""
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise FaultError(400, f"the field `{name}` is there {count} times", name)
