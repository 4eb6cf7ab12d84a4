"""The geo database and the override file: opened at start, followed while running.

`locate` uses the last good files; `reload` puts changed files in use. A file that turns bad or
vanishes is reported once and changes nothing until it is good again. No lookup raises, waits
or leaves the machine.

The reader maps its file into memory. Overwriting a mapped file in place (`cp new.mmdb geo.mmdb`)
would kill the process with SIGBUS, so an operator's database is copied into anonymous memory
first. Only the bundled database is mapped directly.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import chain
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import TYPE_CHECKING, BinaryIO, Generic, TypeVar

from edgeproxy import regular_file
from edgeproxy.core.geo import overrides as override_file
from edgeproxy.core.geo.locator import Locator
from edgeproxy.core.geo.overrides import Overrides
from edgeproxy.core.geo.regions import region_of
from edgeproxy.errors import GeoError
from edgeproxy.log import EventLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from maxminddb import Reader

    from edgeproxy.core.geo.origin import Origin

BUNDLED_DATABASE = Path(__file__).parents[1] / "data" / "dbip-country.mmdb"
OLD_DAYS = 90

log = EventLog("geo")
_EXPECTED = {
    "database": "expected a MaxMind-format country database, for instance GeoLite2-Country.mmdb",
    "overrides": "expected a text file of cidr,country[,region] lines",
}
_NETWORKS_TRIED = 1000
_METADATA_MARK = b"\xab\xcd\xefMaxMind.com"
_MAX_METADATA_BYTES = 128 << 10
"""The mark stands in this last part of every database."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class GeoSettings:
    """Where the geo data comes from."""

    database: Path | None = None
    """MaxMind-format country database (`.mmdb`); None is the bundled one."""

    overrides: Path | None = None
    """File of `cidr,country[,region]` lines that win over the database; None is no overrides."""


class Geo:
    """Locates clients by the last good database and override file.

    `locate` is for one thread. The two files are reloaded in any other, one call at a time for
    each: a reload swaps one reference, and a lookup under way finishes with the old files.

    Raises:
        GeoError: A file is missing, unreadable or not what it should be.
    """

    def __init__(self, settings: GeoSettings) -> None:
        self._is_bundled = settings.database is None
        self._database = (
            _File("database", BUNDLED_DATABASE, _Database)
            if settings.database is None
            else _File("database", settings.database, _copied_database)
        )
        self._overrides = (
            None
            if settings.overrides is None
            else _File("overrides", settings.overrides, _load_overrides)
        )
        self._swapping = threading.Lock()
        self._locator = self._new_locator()
        self._report_age()

    def locate(self, ip: str) -> Origin:
        """Return where the client with this address comes from. Never raises."""
        return self._locator(ip)

    def reload(self) -> bool:
        """Reload both files, as the two methods below do."""
        new_database = self.reload_database()
        return self.reload_overrides() or new_database

    def reload_database(self) -> bool:
        """Read the database if it changed; return whether a new one is in use. Never raises."""
        if not self._database.refresh():
            return False
        self._use_new()
        self._report_age()
        return True

    def reload_overrides(self) -> bool:
        """The same for the override file."""
        if self._overrides is None or not self._overrides.refresh():
            return False
        self._use_new()
        return True

    def _use_new(self) -> None:
        with self._swapping:
            self._locator = self._new_locator()
        log.info("geo_reloaded", **self.description)

    @property
    def description(self) -> dict[str, object]:
        """What is in use, for a log line: `database`, `type`, `built` and number of `overrides`."""
        database = self._database
        return {
            "database": "bundled" if self._is_bundled else str(database.path),
            "type": database.value.type,
            "built": database.value.built,
            "overrides": len(self._overrides.value) if self._overrides else 0,
        }

    def _new_locator(self) -> Locator:
        overrides = self._overrides.value if self._overrides else Overrides()
        return Locator(self._database.value.lookup, overrides)

    def _report_age(self) -> None:
        database = self._database.value
        age_days = int((time.time() - database.built_epoch) / 86400)
        if age_days > OLD_DAYS:
            # The bundled one ages with the release; its user can do nothing about a warning.
            report = log.debug if self._is_bundled else log.warning
            report(
                "geo_database_old", path=self._database.path, built=database.built, days=age_days
            )


class _File(Generic[_T]):
    """A followed file: `value` is the content of its last good version.

    Raises:
        GeoError: The file cannot be used at the start.
    """

    value: _T

    def __init__(self, kind: str, path: Path, load: Callable[[Path], _T]) -> None:
        self.path = path
        self._kind = kind
        self._load = load
        self._tried: tuple[int, ...] | None = None
        self._is_bad = False
        self._read_if_changed()

    def refresh(self) -> bool:
        """Read the file if it changed; return whether `value` is new."""
        try:
            is_new = self._read_if_changed()
        except GeoError as error:
            if not self._is_bad:
                log.warning(f"geo_{self._kind}_bad", path=self.path, reason=str(error))
            self._is_bad = True
            return False
        if is_new:
            self._is_bad = False
        return is_new

    def _read_if_changed(self) -> bool:
        try:
            stamp = _stamp(self.path)
            if stamp == self._tried:
                return False
            self._tried = stamp
            self.value = self._load(self.path)
            return True
        except OSError as error:
            self._tried = None  # may pass without a change of the file: try again next time
            raise self._unusable(error.strerror or error) from error
        except ValueError as error:
            raise self._unusable(error) from error

    def _unusable(self, reason: object) -> GeoError:
        return GeoError(f"geo {self._kind} {self.path}: {reason}; {_EXPECTED[self._kind]}")


def _stamp(path: Path) -> tuple[int, ...]:
    """Return a stamp that changes whenever a file is replaced, edited or made readable."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _load_overrides(path: Path) -> Overrides:
    return override_file.parse(regular_file.read_text(path, regular_file.MAX_OVERRIDES_BYTES))


class _Database:
    """An open database. Garbage collection closes it, so no lookup ever meets a closed one.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a MaxMind-format database, is damaged or holds no countries.
    """

    def __init__(self, path: Path | str, *, is_trusted: bool = True) -> None:
        # 25 ms, most of it in imports that the package makes to know its own version.
        import maxminddb

        try:
            has_countries = is_trusted
            if not is_trusted:
                with maxminddb.open_database(path, maxminddb.MODE_MMAP) as careful_reader:
                    has_countries = _has_countries(careful_reader)
            reader = maxminddb.open_database(path)
            metadata = reader.metadata()
            self.type = metadata.database_type
            self.built_epoch = metadata.build_epoch
            self.built = time.strftime("%Y-%m-%d", time.gmtime(metadata.build_epoch))
        except OSError:
            raise
        except Exception as error:
            # The message of the parser names the path of the copy, which users do not know.
            raise ValueError("not a MaxMind-format database, or a damaged one") from error
        if not has_countries:
            raise ValueError(f"a database of type {self.type!r}, which has no countries")
        self._get = reader.get_with_prefix_len

    def lookup(self, ip: str) -> tuple[str | None, str]:
        """Return the country of a normal address and the network it is known for, or nothing."""
        try:
            record, length = self._get(ip)
        except Exception:  # noqa: BLE001 - damage, or IPv6 in a database of IPv4: unknown
            return None, ""
        country = _country(record)
        return (country, _network(ip, length)) if country else (None, "")


def _has_countries(reader: Reader) -> bool:
    """Try lookups all over the address space, then every network of a small database.

    `reader` is the one in pure Python: it raises when it meets damage, where the fast one may
    follow a bad record out of the mapped file. A file that is being overwritten looks whole and is
    damaged.
    """
    spread = [_sound_record(reader, IPv4Address(f"{octet}.1.1.1"))[0] for octet in range(1, 224)]
    starts: list[IPv4Address | IPv6Address] = [IPv4Address(0)]
    if reader.metadata().ip_version == 6:
        starts.append(IPv6Address(1 << 32))  # what is below is the IPv4 part
    first = chain.from_iterable(_walk(reader, start) for start in starts)
    return any(_country(record) for record in chain(spread, first))


def _walk(reader: Reader, address: IPv4Address | IPv6Address) -> Iterator[object]:
    """Yield the records of the first networks from `address` on."""
    bits = address.max_prefixlen
    number = int(address)
    for _ in range(_NETWORKS_TRIED):
        record, length = _sound_record(reader, type(address)(number))
        yield record
        number = (number >> bits - length) + 1 << bits - length
        if number >> bits:
            return


def _sound_record(reader: Reader, address: IPv4Address | IPv6Address) -> tuple[object, int]:
    """Return the record of an address and the length of its prefix; raise on damage."""
    record, length = reader.get_with_prefix_len(address)
    if not _has_text_keys(record):
        raise ValueError("a key that is not text")  # the fast reader takes it for an address
    return record, length


def _has_text_keys(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _has_text_keys(value[key]) for key in value)
    return not isinstance(value, list) or all(map(_has_text_keys, value))


def _copied_database(path: Path) -> _Database:
    end = regular_file.tail(path, _MAX_METADATA_BYTES, regular_file.MAX_GEO_BYTES)
    if _METADATA_MARK not in end:  # before memory is filled with it
        raise ValueError("not a MaxMind-format database, or a damaged one")
    with _anonymous_file() as copy:
        for chunk in regular_file.chunks(path, regular_file.MAX_GEO_BYTES):
            copy.write(chunk)
        copy.flush()
        return _Database(f"/proc/self/fd/{copy.fileno()}", is_trusted=False)


def _anonymous_file() -> BinaryIO:
    try:
        return os.fdopen(os.memfd_create("edgeproxy-geo"), "w+b")
    except (AttributeError, OSError):
        import tempfile

        return tempfile.TemporaryFile()


def _country(record: object) -> str | None:
    """Return the country of a flat record (`country_code`) or of a GeoIP2 one."""
    if not isinstance(record, dict):
        return None
    code = record.get("country_code")
    for part in (record.get("country"), record.get("registered_country")):
        if code is None and isinstance(part, dict):
            code = part.get("iso_code")
    return code if isinstance(code, str) and region_of(code) else None


def _network(ip: str, length: int) -> str:
    family, size = (AF_INET6, 16) if ":" in ip else (AF_INET, 4)
    host_bits = size * 8 - length
    number = int.from_bytes(inet_pton(family, ip), "big") >> host_bits << host_bits
    return f"{inet_ntop(family, number.to_bytes(size, 'big'))}/{length}"
