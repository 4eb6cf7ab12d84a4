"""Reads and writes the TOML file: the text of each setting, its line, and overlays of backends.

Faults are collected with their lines, so that the user sees all of them at once.
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

from edgeproxy import regular_file
from edgeproxy import values as value
from edgeproxy.config.config import Effective
from edgeproxy.config.old_names import REMOVED, names_of
from edgeproxy.config.setting import PREFIX
from edgeproxy.config.table import SETTINGS
from edgeproxy.core.backends.health import KINDS
from edgeproxy.core.backends.local_overrides import Overlay
from edgeproxy.listeners import spec
from edgeproxy.values import BadValueError, ListenAddress, networks, protocols

FILE_VARIABLE = "EDGEPROXY_CONFIG"
BACKENDS = "backends"
MAX_BACKEND_NUMBER = 2**31 - 1
MAX_WHOLE_NUMBER = 2**63 - 1
"""The largest whole number in TOML."""

_BACKEND_KEYS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "weight": ("weight", value.whole_number(least=0, most=MAX_BACKEND_NUMBER)),
    "soft_limit": ("soft_limit", value.whole_number(least=0, most=MAX_BACKEND_NUMBER)),
    "hard_limit": ("hard_limit", value.whole_number(least=0, most=MAX_BACKEND_NUMBER)),
    "health_check_type": ("check_type", value.one_of(*KINDS)),
    "health_check_path": ("check_path", value.http_path),
}
"""The keys of `[backends."ID"]`: the field of `Overlay`, and its parser."""
_LIST_EXAMPLES: dict[Callable[[str], object], str] = {
    networks: "10.0.0.0/8",
    protocols: "h2",
    spec.listeners: "0.0.0.0:8080=myapp",
    spec.routes: "www.example.com=myapp",
    spec.proxy_protocol_out: "v2",
    spec.backend_tls: "myapp=backend.internal",
}
"""Parsers whose setting may be a TOML list, with an example of an entry."""
_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?")
_TABLE_TWICE = re.compile(r"Cannot declare \((.*)\) twice (\(.*\))")
_NAME_TWICE = "Cannot overwrite a value"
"""What `tomllib` says of a table, and of a key, that is there twice."""
_KEY = re.compile(r"\s*([A-Za-z0-9_-]+)\s*=")


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The content of a file.

    Attributes:
        texts: The text of each setting, by its file key such as `proxy.region`.
        lines: The line of each file key, where it is written in the usual way.
        overlays: What the file sets for single backends, by id.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)
    overlays: Mapping[str, Overlay] = field(default_factory=dict)

    def where(self, file_key: str) -> str:
        """Return the line of a key as the start of a message, or ""."""
        return _line(self.lines, file_key)


def read(path: Path, faults: list[str]) -> ConfigFile:
    """Return the content of the file; add what is wrong to `faults`."""
    import tomllib

    try:
        text = regular_file.read_text(path, regular_file.MAX_CONFIG_BYTES)
        sections = tomllib.loads(text)
    except OSError as error:
        faults.append(f"{FILE_VARIABLE}={str(path)!r}: cannot be read: {error.strerror}")
        return ConfigFile()
    except tomllib.TOMLDecodeError as error:
        faults.append(f"{path}: is not valid TOML: {_in_words(error)}")
        return ConfigFile()
    except ValueError as error:  # bad UTF-8, or a number of thousands of digits
        faults.append(f"{path}: is not valid TOML: {error}")
        return ConfigFile()
    except RecursionError:
        faults.append(f"{path}: is not valid TOML: it is nested too deeply")
        return ConfigFile()
    lines = _lines(text)
    overlays = _overlays(sections.pop(BACKENDS, {}), path, lines, faults)
    return ConfigFile(_texts(sections, path, lines, faults), lines, overlays)


def _in_words(error: Exception) -> str:
    """Return what is wrong with the TOML, and what is right."""
    said = str(error)
    if twice := _TABLE_TWICE.fullmatch(said):
        table = twice[1].replace("', '", ".").strip("',")
        return f"table [{table}] is there twice {twice[2]}; put all its settings below one header"
    if said.startswith(_NAME_TWICE):
        return said.replace(_NAME_TWICE, "a name is there twice") + "; remove one of them"
    return (
        f'{said}; a setting is NAME = VALUE on one line, a text in quotes such as "eu", a switch '
        "true or false"
    )


def shown(chosen: object) -> str:
    """Return a value as the user writes it in the environment; "" if it is unset."""
    if chosen is None:
        return ""
    if isinstance(chosen, tuple) and not isinstance(chosen, ListenAddress):
        return ",".join(map(str, chosen))
    if isinstance(chosen, bool):
        return "true" if chosen else "false"
    return _digits(chosen) if isinstance(chosen, float) else str(chosen)


def _digits(number: float) -> str:
    """Return a number in plain digits, without loss: the parsers allow no exponent."""
    if not math.isfinite(number):
        return str(number)
    return f"{Decimal(repr(number)):f}".removesuffix(".0")


def written(settings: Iterable[Effective], overlays: Mapping[str, Overlay]) -> str:
    """Return the text of a complete file with these values."""
    sections: dict[str, list[str]] = {}
    for each in settings:
        section, _, key = each.setting.file_key.partition(".")
        is_set = each.value not in (None, "", ()) and not each.setting.is_secret
        line = f"{key} = {_toml(each.value)}" if is_set else f"# {key} ="
        sections.setdefault(section, []).extend((f"# {each.setting.meaning}", line))
    for backend_id, overlay in overlays.items():
        sections[f"{BACKENDS}.{json.dumps(backend_id)}"] = [
            f"{key} = {_toml(getattr(overlay, name))}"
            for key, (name, _) in _BACKEND_KEYS.items()
            if getattr(overlay, name) is not None
        ]
    return "\n\n".join("\n".join((f"[{name}]", *lines)) for name, lines in sections.items())


def _toml(chosen: object) -> str:
    """Return a value in TOML."""
    if isinstance(chosen, bool | int | float):
        # Without a point, TOML would read a float of this size as a whole number, and refuse it.
        exceeds_whole = isinstance(chosen, float) and abs(chosen) > MAX_WHOLE_NUMBER
        return shown(chosen) + (".0" if exceeds_whole else "")
    if isinstance(chosen, tuple) and not isinstance(chosen, ListenAddress):
        return json.dumps([str(each) for each in chosen])
    return json.dumps(str(chosen), ensure_ascii=False)


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a hint at the most similar name, or "". The prefix that all share does not count."""
    from difflib import get_close_matches

    own = {each.removeprefix(PREFIX): each for each in sorted(names)}
    near = get_close_matches(name.removeprefix(PREFIX), own, n=1)
    return f"; did you mean {own[near[0]]}?" if near else ""


def _texts(
    sections: Mapping[str, Any], path: Path, lines: Mapping[str, int], faults: list[str]
) -> dict[str, str]:
    """Return the text of each setting by its file key; add what is wrong to `faults`."""
    parsers = {name.file_key: name.parse for each in SETTINGS for name in names_of(each)}
    removed = {old.file_key for old in REMOVED}
    by_variable = {name.variable: name.file_key for each in SETTINGS for name in names_of(each)}
    texts: dict[str, str] = {}
    for section, content in sections.items():
        keys = content if isinstance(content, dict) else {"": content}
        for key, entry in keys.items():
            file_key = f"{section}.{key}".rstrip(".")
            where = f"{path}: {_line(lines, file_key)}"
            if file_key not in parsers and file_key not in removed:
                meant = by_variable.get(key)
                hint = f"; did you mean {meant}?" if meant else nearest(file_key, parsers)
                faults.append(f"{where}{file_key} is not a setting{hint}")
            elif (parse := parsers.get(file_key)) in _LIST_EXAMPLES and isinstance(entry, list):
                if all(isinstance(each, str) for each in entry):
                    # [""] must not read as unset: the parser refuses "," but allows "".
                    texts[file_key] = ",".join(entry) or "," * len(entry)
                else:
                    example = _LIST_EXAMPLES[parse]
                    faults.append(f'{where}{file_key} takes a list of texts such as "{example}"')
            elif kind := _not_one_value(entry):
                faults.append(f"{where}{file_key} takes one value, not {kind}")
            else:
                texts[file_key] = shown(entry)
    return texts


def _line(lines: Mapping[str, int], file_key: str) -> str:
    return f"line {lines[file_key]}: " if file_key in lines else ""


def _not_one_value(entry: object) -> str:
    """Return the kind of an entry that is not one value, or ""."""
    if isinstance(entry, int) and abs(entry) > MAX_WHOLE_NUMBER:
        return "a whole number of more than 64 bits"
    if isinstance(entry, str | int | float):
        return ""
    # Its kind, not its text: that may be nested thousands deep.
    if isinstance(entry, dict):
        return "a table"
    return "a list" if isinstance(entry, list) else "a date or a time"


def _overlays(
    backends: object, path: Path, lines: Mapping[str, int], faults: list[str]
) -> dict[str, Overlay]:
    """Return the overlays by backend; add what is wrong to `faults`."""
    if not isinstance(backends, dict) or not all(
        isinstance(each, dict) for each in backends.values()
    ):
        faults.append(f'{path}: {BACKENDS} is for sections such as [{BACKENDS}."sa-node-1"]')
        return {}
    overlays = {}
    for backend_id, content in backends.items():
        fields: dict[str, Any] = {}
        for key, entry in content.items():
            file_key = f"{BACKENDS}.{backend_id}.{key}"
            where = f"{path}: {_line(lines, file_key)}"
            if key not in _BACKEND_KEYS:
                faults.append(f"{where}{file_key} is not a setting{nearest(key, _BACKEND_KEYS)}")
                continue
            if kind := _not_one_value(entry):
                faults.append(f"{where}{file_key} takes one value, not {kind}")
                continue
            name, parse = _BACKEND_KEYS[key]
            try:
                fields[name] = parse(shown(entry))
            except BadValueError as bad:
                faults.append(f"{where}{file_key} = {entry!r}: {bad}")
        overlays[backend_id] = Overlay(**fields)
    return overlays


def _lines(text: str) -> dict[str, int]:
    """Return the line of each `section.key` that stands below a `[section]` header."""
    lines: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.fullmatch(line):
            section = header[1].replace('"', "").replace("'", "")
        elif key := _KEY.match(line):
            lines.setdefault(f"{section}.{key[1]}".lstrip("."), number)
    return lines
