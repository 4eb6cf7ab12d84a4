"""Reads the TOML file: the text of each setting, where it stands, what it says of backends.

Whatever is wrong is collected, with its line, so that it can be told all at once.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from edgeproxy import values as value
from edgeproxy.config.config import Effective
from edgeproxy.config.table import SETTINGS
from edgeproxy.core.backends.health import KINDS
from edgeproxy.core.backends.local_overrides import Overlay
from edgeproxy.listeners import spec
from edgeproxy.values import BadValueError, ListenAddress, networks, protocols

FILE_VARIABLE = "EDGEPROXY_CONFIG"
BACKENDS = "backends"
MOST = 2**31 - 1
MOST_WHOLE = 2**63 - 1
"""The largest whole number in TOML."""

_OF_BACKEND: dict[str, tuple[str, Callable[[str], Any]]] = {
    "weight": ("weight", value.whole_number(least=0, most=MOST)),
    "soft_limit": ("soft_limit", value.whole_number(least=0, most=MOST)),
    "hard_limit": ("hard_limit", value.whole_number(least=0, most=MOST)),
    "health_check_type": ("check_type", value.one_of(*KINDS)),
    "health_check_path": ("check_path", value.http_path),
}
_LISTS: dict[Callable[[str], object], str] = {
    networks: "10.0.0.0/8",
    protocols: "h2",
    spec.listeners: "0.0.0.0:8080=myapp",
    spec.routes: "www.example.com=myapp",
    spec.proxy_out: "v2",
    spec.backend_tls: "myapp=backend.internal",
}
"""What these parse may be a list in the file, of such texts."""
_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?")
_KEY = re.compile(r"\s*([A-Za-z0-9_-]+)\s*=")


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a file says.

    Attributes:
        texts: The text of each setting by its place, such as `proxy.region`.
        lines: On which line a place stands, as far as that is known.
        overlays: What it says of backends, by id.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)
    overlays: Mapping[str, Overlay] = field(default_factory=dict)

    def where(self, place: str) -> str:
        """Return the line of a place, for messages, or ""."""
        return f"line {self.lines[place]}: " if place in self.lines else ""


def read(path: Path, faults: list[str]) -> ConfigFile:
    """Return what the file says; add what is wrong to `faults`."""
    import tomllib

    try:
        written = path.read_text(encoding="utf-8")
        sections = tomllib.loads(written)
    except OSError as error:
        faults.append(f"{FILE_VARIABLE}={str(path)!r}: cannot be read: {error.strerror}")
        return ConfigFile()
    except ValueError as error:  # of TOML, of UTF-8, of numbers with thousands of digits
        faults.append(f"{path}: is not valid TOML: {error}")
        return ConfigFile()
    except RecursionError:
        faults.append(f"{path}: is not valid TOML: it is nested too deeply")
        return ConfigFile()
    lines = _lines(written)
    overlays = sections.pop(BACKENDS, {})
    found = ConfigFile({}, lines, _overlays(overlays, path, lines, faults))
    return ConfigFile(_texts(sections, path, found, faults), lines, found.overlays)


def shown(chosen: object) -> str:
    """Return a value as it is written in the environment; unset is empty."""
    if chosen is None:
        return ""
    if isinstance(chosen, tuple) and not isinstance(chosen, ListenAddress):
        return ",".join(map(str, chosen))
    if isinstance(chosen, bool):
        return "true" if chosen else "false"
    return _digits(chosen) if isinstance(chosen, float) else str(chosen)


def _digits(number: float) -> str:
    """Return a number in plain digits, as the parsers of settings allow it; none is lost."""
    if not math.isfinite(number):
        return str(number)
    return f"{Decimal(repr(number)):f}".removesuffix(".0")


def written(settings: Iterable[Effective], overlays: Mapping[str, Overlay]) -> str:
    """Return a complete file with these values."""
    sections: dict[str, list[str]] = {}
    for each in settings:
        section, _, key = each.setting.file_key.partition(".")
        is_set = each.value not in (None, "", ()) and not each.setting.is_secret
        line = f"{key} = {_toml(each.value)}" if is_set else f"# {key} ="
        sections.setdefault(section, []).extend((f"# {each.setting.meaning}", line))
    for backend_id, overlay in overlays.items():
        sections[f"{BACKENDS}.{json.dumps(backend_id)}"] = [
            f"{key} = {_toml(getattr(overlay, name))}"
            for key, (name, _) in _OF_BACKEND.items()
            if getattr(overlay, name) is not None
        ]
    return "\n\n".join("\n".join((f"[{name}]", *lines)) for name, lines in sections.items())


def _toml(chosen: object) -> str:
    """Return a value as TOML has it."""
    if isinstance(chosen, bool | int | float):
        is_too_long = isinstance(chosen, float) and abs(chosen) > MOST_WHOLE
        return shown(chosen) + ".0" * is_too_long
    if isinstance(chosen, tuple) and not isinstance(chosen, ListenAddress):
        return json.dumps([str(each) for each in chosen])
    return json.dumps(str(chosen), ensure_ascii=False)


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a hint at the name that was probably meant, or ""."""
    from difflib import get_close_matches

    near = get_close_matches(name, sorted(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _texts(
    sections: Mapping[str, Any], path: Path, file: ConfigFile, faults: list[str]
) -> dict[str, str]:
    parsers = {setting.file_key: setting.parse for setting in SETTINGS}
    found: dict[str, str] = {}
    for section, content in sections.items():
        keys = content if isinstance(content, dict) else {"": content}
        for key, entry in keys.items():
            place = f"{section}.{key}".rstrip(".")
            where = f"{path}: {file.where(place)}"
            if place not in parsers:
                faults.append(f"{where}{place} is not a setting{nearest(place, parsers)}")
            elif parsers[place] in _LISTS and isinstance(entry, list):
                if all(isinstance(each, str) for each in entry):
                    # A list that names nothing is not the same as none.
                    found[place] = ",".join(entry) or "," * len(entry)
                else:
                    such = _LISTS[parsers[place]]
                    faults.append(f'{where}{place} takes a list of texts such as "{such}"')
            elif odd := _oddity(entry):
                faults.append(f"{where}{place} takes one value, not {odd}")
            else:
                found[place] = shown(entry)
    return found


def _oddity(entry: object) -> str:
    """Return what an entry is that is not one value, or ""."""
    if isinstance(entry, int) and abs(entry) > MOST_WHOLE:
        return "a whole number of more than 64 bits"
    if isinstance(entry, str | int | float):
        return ""
    # Its kind, not what it says: that may be nested for ever.
    if isinstance(entry, dict):
        return "a table"
    return "a list" if isinstance(entry, list) else "a date or a time"


def _overlays(
    given: object, path: Path, lines: Mapping[str, int], faults: list[str]
) -> dict[str, Overlay]:
    if not isinstance(given, dict) or not all(isinstance(each, dict) for each in given.values()):
        faults.append(f'{path}: {BACKENDS} is for sections such as [{BACKENDS}."sa-node-1"]')
        return {}
    overlays = {}
    for backend_id, content in given.items():
        said: dict[str, Any] = {}
        for key, entry in content.items():
            place = f"{BACKENDS}.{backend_id}.{key}"
            line = f"line {lines[place]}: " if place in lines else ""
            if key not in _OF_BACKEND:
                faults.append(f"{path}: {line}{place} is not a setting{nearest(key, _OF_BACKEND)}")
                continue
            if odd := _oddity(entry):
                faults.append(f"{path}: {line}{place} takes one value, not {odd}")
                continue
            name, parse = _OF_BACKEND[key]
            try:
                said[name] = parse(shown(entry))
            except BadValueError as bad:
                faults.append(f"{path}: {line}{place} = {entry!r}: {bad}")
        overlays[backend_id] = Overlay(**said)
    return overlays


def _lines(written: str) -> dict[str, int]:
    """Return on which line each `section.key` stands, where it is written in the usual way."""
    found: dict[str, int] = {}
    section = ""
    for number, line in enumerate(written.splitlines(), start=1):
        if header := _HEADER.fullmatch(line):
            section = header[1].replace('"', "").replace("'", "")
        elif key := _KEY.match(line):
            found.setdefault(f"{section}.{key[1]}".lstrip("."), number)
    return found
