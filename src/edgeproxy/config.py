"""Every setting: its variable, its place in the file, its default, what it allows.

Values come from the environment, from the TOML file named by `EDGEPROXY_CONFIG`, or are
the defaults of the parts' own settings; environment wins over file, file over default. An
empty variable counts as unset. Nothing is ever replaced silently: `load` raises one
`ConfigError` that lists every bad value, where it stands and what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from edgeproxy import value
from edgeproxy.control.geo import GeoSettings
from edgeproxy.core.admission import AdmissionSettings
from edgeproxy.core.affinity import AffinitySettings
from edgeproxy.core.ejection import EjectionSettings
from edgeproxy.engine.choice import KINDS
from edgeproxy.engine.contract import EngineSettings
from edgeproxy.errors import ConfigError
from edgeproxy.log import LogSettings
from edgeproxy.store.sqlite import DatabaseSettings
from edgeproxy.value import BadValueError, ListenAddress

PREFIX = "EDGEPROXY_"
FILE_VARIABLE = "EDGEPROXY_CONFIG"
DEFAULT_LISTEN = ListenAddress("0.0.0.0", 8080)  # noqa: S104 — an edge serves the world


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """The process as a whole.

    Attributes:
        listen: Where clients are accepted.
        shutdown_timeout_secs: How long open connections may take to finish at the end.
    """

    listen: ListenAddress = DEFAULT_LISTEN
    shutdown_timeout_secs: float = 30.0


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of all parts."""

    proxy: ProxySettings = field(default_factory=ProxySettings)
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    affinity: AffinitySettings = field(default_factory=AffinitySettings)
    ejection: EjectionSettings = field(default_factory=EjectionSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    geo: GeoSettings = field(default_factory=GeoSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    log: LogSettings = field(default_factory=LogSettings)


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that can be set.

    Attributes:
        variable: Its environment variable.
        place: Its section and key in the file, for instance `database.path`.
        target: Its part and field in `Config`.
        parse: Turns text into the value; raises BadValueError.
        meaning: One line for people.
    """

    variable: str
    place: str
    target: str
    parse: Callable[[str], object]
    meaning: str


_SECONDS = value.number("seconds", least=0)
_INTERVAL = value.number("seconds", least=0.05)

SETTINGS = (
    Setting(
        "EDGEPROXY_LISTEN_ADDR",
        "proxy.listen_addr",
        "proxy.listen",
        value.listen_address,
        "where clients are accepted; port 0 lets the system choose",
    ),
    Setting(
        "EDGEPROXY_DB_PATH",
        "database.path",
        "database.path",
        Path,
        "the SQLite routing database; made with its schema if missing",
    ),
    Setting(
        "EDGEPROXY_REGION",
        "proxy.region",
        "admission.region",
        value.region,
        "the region of this POP",
    ),
    Setting(
        "EDGEPROXY_APP",
        "proxy.app",
        "admission.app",
        value.text,
        "serve only the backends of this app; unset: all apps as one pool",
    ),
    Setting(
        "EDGEPROXY_DB_RELOAD_SECS",
        "database.reload_secs",
        "database.reload_secs",
        _INTERVAL,
        "how often the routing database and the geo files are looked at",
    ),
    Setting(
        "EDGEPROXY_BINDING_TTL_SECS",
        "affinity.ttl_secs",
        "affinity.ttl_secs",
        _SECONDS,
        "how long a client stays bound after it last opened a connection; 0: not at all",
    ),
    Setting(
        "EDGEPROXY_BINDING_GC_INTERVAL_SECS",
        "affinity.gc_interval_secs",
        "affinity.gc_interval_secs",
        _INTERVAL,
        "how often expired bindings are removed from memory",
    ),
    Setting(
        "EDGEPROXY_BINDING_MAX",
        "affinity.max_bindings",
        "affinity.max_bindings",
        value.whole_number(least=1),
        "how many bindings are kept; the one unused for longest makes room",
    ),
    Setting(
        "EDGEPROXY_GEOIP_PATH",
        "geo.database",
        "geo.database",
        Path,
        "a MaxMind-format country or city database; unset: the bundled one",
    ),
    Setting(
        "EDGEPROXY_GEO_OVERRIDES",
        "geo.overrides",
        "geo.overrides",
        Path,
        "a file of `cidr,country[,region]` lines that wins over the database",
    ),
    Setting(
        "EDGEPROXY_CONNECT_TIMEOUT_SECS",
        "timeouts.connect_secs",
        "engine.connect_timeout_secs",
        _INTERVAL,
        "how long one backend may take to answer before the next one is tried",
    ),
    Setting(
        "EDGEPROXY_CONNECT_ATTEMPTS",
        "proxy.connect_attempts",
        "admission.max_attempts",
        value.whole_number(least=1, most=100),
        "how many backends one client is tried on",
    ),
    Setting(
        "EDGEPROXY_PASS_OVER_SECS",
        "proxy.pass_over_secs",
        "ejection.first_secs",
        _SECONDS,
        "how long new clients pass a backend over after a failed dial; doubles up to 60 s",
    ),
    Setting(
        "EDGEPROXY_IDLE_TIMEOUT_SECS",
        "timeouts.idle_secs",
        "engine.idle_timeout_secs",
        _SECONDS,
        "a connection without a byte either way for so long is closed; 0: never",
    ),
    Setting(
        "EDGEPROXY_USER_TIMEOUT_SECS",
        "timeouts.user_secs",
        "engine.user_timeout_secs",
        _SECONDS,
        "a peer that acknowledges nothing for so long is gone; 0: as the system decides",
    ),
    Setting(
        "EDGEPROXY_SHUTDOWN_TIMEOUT_SECS",
        "proxy.shutdown_timeout_secs",
        "proxy.shutdown_timeout_secs",
        _SECONDS,
        "how long open connections may take to finish after SIGTERM",
    ),
    Setting(
        "EDGEPROXY_ENGINE",
        "proxy.engine",
        "engine.kind",
        value.one_of(*KINDS),
        "what carries the bytes",
    ),
    Setting(
        "EDGEPROXY_BYTE_THREADS",
        "proxy.byte_threads",
        "engine.byte_threads",
        value.whole_number(least=0, most=64),
        "how many threads of the native engine carry bytes; 0: one for each CPU",
    ),
    Setting(
        "EDGEPROXY_LOG_FORMAT",
        "log.format",
        "log.format",
        value.one_of("text", "json"),
        "the form of the lines on stderr",
    ),
    Setting("DEBUG", "log.debug", "log.debug", value.boolean, "log more"),
)


@dataclass(frozen=True, slots=True)
class Effective:
    """A setting's value in force and where it came from."""

    setting: Setting
    value: object
    source: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """What `load` found.

    Attributes:
        config: The settings of all parts.
        effective: Every setting with its value, in the order of `SETTINGS`.
        warnings: What is odd but harmless, for instance an unknown variable.
    """

    config: Config
    effective: tuple[Effective, ...]
    warnings: tuple[str, ...]


def load(environ: Mapping[str, str]) -> Loaded:
    """Return the configuration that this environment asks for. Raises ConfigError."""
    faults: list[str] = []
    path = environ.get(FILE_VARIABLE, "")
    in_file = _read_file(Path(path), faults) if path else {}
    effective = []
    for setting in SETTINGS:
        source, text, where = "default", None, ""
        if environ.get(setting.variable):
            source, text = "environment", environ[setting.variable]
            where = f"{setting.variable}={text!r}"
        elif setting.place in in_file:
            source, text = path, in_file[setting.place]
            where = f"{path}: {setting.place} = {text!r}"
        chosen = default_of(setting)
        if text is not None:
            try:
                chosen = setting.parse(text)
            except BadValueError as bad:
                faults.append(f"{where}: {bad}")
        effective.append(Effective(setting, chosen, source))
    warnings = [_unknown(name) for name in sorted(environ) if _is_unknown(name)]
    if faults:
        raise ConfigError("\n  ".join(["the configuration is not valid:", *faults, *warnings]))
    return Loaded(_build(effective), tuple(effective), tuple(warnings))


def default_of(setting: Setting) -> object:
    """Return the default value of a setting."""
    part, name = setting.target.split(".")
    return getattr(getattr(_defaults(), part), name)


def shown(chosen: object) -> str:
    """Return a value as it is written in the environment; unset is empty."""
    if chosen is None:
        return ""
    if isinstance(chosen, bool):
        return "true" if chosen else "false"
    return f"{chosen:g}" if isinstance(chosen, float) else str(chosen)


@cache
def _defaults() -> Config:
    return Config()


def _build(effective: list[Effective]) -> Config:
    from dataclasses import replace

    chosen: dict[str, dict[str, object]] = {}
    for each in effective:
        part, name = each.setting.target.split(".")
        chosen.setdefault(part, {})[name] = each.value
    defaults = _defaults()
    parts = {part: replace(getattr(defaults, part), **fields) for part, fields in chosen.items()}
    return replace(defaults, **parts)


def _read_file(path: Path, faults: list[str]) -> dict[str, str]:
    """Return the file's values as text by place; adds what is wrong to `faults`."""
    import tomllib

    try:
        sections = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        faults.append(f"{FILE_VARIABLE}={str(path)!r}: cannot be read: {error.strerror}")
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        faults.append(f"{path}: is not valid TOML: {error}")
        return {}
    places = {setting.place for setting in SETTINGS}
    found: dict[str, str] = {}
    for section, content in sections.items():
        keys = content if isinstance(content, dict) else {"": content}
        for key, entry in keys.items():
            place = f"{section}.{key}".rstrip(".")
            if place not in places:
                faults.append(f"{path}: {place} is not a setting{_nearest(place, places)}")
            elif not isinstance(entry, str | int | float):
                faults.append(f"{path}: {place} takes one value, not {entry!r}")
            else:
                found[place] = shown(entry)
    return found


def _is_unknown(name: str) -> bool:
    known = name == FILE_VARIABLE or any(name == each.variable for each in SETTINGS)
    return name.startswith(PREFIX) and not known


def _unknown(name: str) -> str:
    names = {each.variable for each in SETTINGS} | {FILE_VARIABLE}
    return f"{name} is not a known variable and does nothing{_nearest(name, names)}"


def _nearest(name: str, names: set[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, sorted(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""
