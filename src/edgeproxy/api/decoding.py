"""Decodes the body of a request into its type, or names the field that is wrong."""

from __future__ import annotations

import re
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
        return msgspec.json.decode(body, type=kind)
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
