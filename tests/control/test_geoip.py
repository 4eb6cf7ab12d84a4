"""The geo files: what is accepted, what is followed, and that no file can hurt a running proxy."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet  # type: ignore[import-untyped]

from edgeproxy.control.geoip import BUNDLED_DATABASE, Geo, GeoSettings
from edgeproxy.errors import GeoError
from tests.events import Events, events_of
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY_SECS = 86400


class Writer(MMDBWriter):
    """Writes a database that was built some days ago."""

    age_days = 0

    def _build_meta(self) -> dict[str, Any]:
        built = int(time.time()) - self.age_days * DAY_SECS
        return {**super()._build_meta(), "build_epoch": built}


def write_database(
    path: Path,
    networks: dict[str, dict[Any, Any]],
    *,
    ip_version: int = 6,
    kind: str = "Test-Country",
    age_days: int = 0,
) -> Path:
    """Put a database in the place of `path` at once, as a careful operator does."""
    writer = Writer(ip_version, kind, ipv4_compatible=ip_version == 6)
    writer.age_days = age_days
    for network, record in networks.items():
        writer.insert_network(IPSet([network]), record)
    new = path.with_suffix(".new")
    writer.to_db_file(str(new))
    return new.replace(path)


def flat(code: str) -> dict[str, Any]:
    return {"country_code": code}


def geoip2(code: str) -> dict[str, Any]:
    return {"continent": {"code": "XX"}, "country": {"iso_code": code}}


def open_geo(database: Path | None = None, overrides: Path | None = None) -> Geo:
    return Geo(GeoSettings(database, overrides))


@pytest.fixture
def events() -> Iterator[Events]:
    with events_of("geo") as events:
        yield events


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return write_database(tmp_path / "geo.mmdb", {"203.0.113.0/24": flat("BR")})


@pytest.fixture
def overrides(tmp_path: Path) -> Path:
    path = tmp_path / "overrides.csv"
    path.write_text("203.0.113.0/25,AR\n10.0.0.0/8,BR\n")
    return path


# --- what a database says


@pytest.mark.parametrize(
    ("ip", "country", "region", "match"),
    [
        ("200.160.2.3", "BR", "sa", "200.160.0.0/15"),
        ("193.99.144.80", "DE", "eu", "193.98.0.0/15"),
        ("202.12.27.33", "JP", "ap", "202.12.26.0/23"),
        ("8.8.8.8", "US", "us", "8.8.0.0/17"),
        ("::ffff:8.8.8.8", "US", "us", "8.8.0.0/17"),
        ("2a00:1450:4001:81b::200e", "DE", "eu", "2a00:1450:4001::/48"),
    ],
)
def test_the_bundled_database_knows_well_known_addresses(
    ip: str, country: str, region: str, match: str
) -> None:
    origin = open_geo().locate(ip)
    assert (origin.country, origin.region, origin.match) == (country, region, match)
    assert origin.source == "database"


@pytest.mark.parametrize("ip_version", [4, 6])
@pytest.mark.parametrize("shape", [flat, geoip2])
def test_both_shapes_of_records_are_understood(tmp_path: Path, ip_version: int, shape: Any) -> None:
    networks = {"203.0.113.0/24": shape("BR"), "198.51.100.0/25": shape("JP")}
    geo = open_geo(write_database(tmp_path / "geo.mmdb", networks, ip_version=ip_version))
    found = [geo.locate(ip) for ip in ("203.0.113.9", "198.51.100.9", "198.51.100.200")]
    assert [(o.country, o.match) for o in found] == [
        ("BR", "203.0.113.0/24"),
        ("JP", "198.51.100.0/25"),
        (None, ""),
    ]


def test_ipv6_networks_are_found(tmp_path: Path) -> None:
    geo = open_geo(write_database(tmp_path / "geo.mmdb", {"2001:db8:40::/42": geoip2("DE")}))
    origin = geo.locate("2001:DB8:41::1")
    assert (origin.country, origin.region, origin.match) == ("DE", "eu", "2001:db8:40::/42")


def test_the_registered_country_stands_in_for_a_missing_one(tmp_path: Path) -> None:
    networks: dict[str, dict[Any, Any]] = {
        "203.0.113.0/24": {"registered_country": {"iso_code": "US"}},
        "198.51.100.0/24": {"country": {"geoname_id": 1}, "registered_country": {"iso_code": "JP"}},
        "192.0.2.0/24": {"country": {"iso_code": "BR"}, "registered_country": {"iso_code": "US"}},
    }
    geo = open_geo(write_database(tmp_path / "geo.mmdb", networks))
    ips = ("203.0.113.1", "198.51.100.1", "192.0.2.1")
    assert [geo.locate(ip).country for ip in ips] == ["US", "JP", "BR"]


@pytest.mark.parametrize(
    "record", [flat("ZZ"), flat(""), flat("EU"), {}, {"country": "Brazil"}, {"country_code": 7}]
)
def test_a_record_without_a_real_country_is_unknown(tmp_path: Path, record: dict[str, Any]) -> None:
    networks = {"203.0.113.0/24": record, "198.51.100.0/24": flat("BR")}
    origin = open_geo(write_database(tmp_path / "geo.mmdb", networks)).locate("203.0.113.1")
    assert (origin.country, origin.region, origin.source) == (None, None, "unknown")


def test_an_ipv6_client_is_unknown_to_a_database_of_ipv4(tmp_path: Path) -> None:
    path = write_database(tmp_path / "geo.mmdb", {"203.0.113.0/24": flat("BR")}, ip_version=4)
    assert open_geo(path).locate("2001:db8::1").country is None


def test_overrides_win_over_the_database(database: Path, overrides: Path) -> None:
    geo = open_geo(database, overrides)
    ips = ("203.0.113.9", "203.0.113.200", "10.1.2.3", "198.51.100.1")
    assert [geo.locate(ip).country for ip in ips] == ["AR", "BR", "BR", None]


# --- what is refused at the start


def assert_refused(
    reason: str, database: Path | None = None, overrides: Path | None = None
) -> None:
    with pytest.raises(GeoError) as caught:
        open_geo(database, overrides)
    message = str(caught.value)
    assert str(overrides or database) in message
    assert reason in message
    assert "expected a" in message
    assert "/proc/" not in message


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert_refused("No such file or directory", database=missing)
    assert_refused("No such file or directory", overrides=missing)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path, fifo):
        assert_refused("not a regular file", database=path)
        assert_refused("not a regular file", overrides=path)


@pytest.mark.parametrize("content", [b"", b"country,BR\n", bytes(100_000)])
def test_what_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "geo.mmdb"
    path.write_bytes(content)
    assert_refused("not a MaxMind-format database", database=path)


def test_a_database_that_was_copied_in_part_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "geo.mmdb"
    content = BUNDLED_DATABASE.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert_refused("not a MaxMind-format database", database=path)


@pytest.mark.parametrize("ip_version", [4, 6])
def test_a_database_without_countries_is_refused(tmp_path: Path, ip_version: int) -> None:
    asn = {"203.0.113.0/24": {"autonomous_system_number": 64496}}
    path = write_database(tmp_path / "asn.mmdb", asn, ip_version=ip_version, kind="GeoLite2-ASN")
    assert_refused("of type 'GeoLite2-ASN', which has no countries", database=path)


def test_a_damaged_record_is_found_before_it_can_kill_the_process(tmp_path: Path) -> None:
    # The fast reader follows a number in the place of a text into memory that is not its own.
    networks: dict[str, dict[Any, Any]]
    networks = {"203.0.113.0/24": flat("BR"), "37.0.0.0/8": {123456: "BR"}}
    path = write_database(tmp_path / "geo.mmdb", networks)
    source = (
        "import sys, pathlib\n"
        "from edgeproxy.control.geoip import Geo, GeoSettings\n"
        "Geo(GeoSettings(pathlib.Path(sys.argv[1]))).locate('37.1.1.2')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", source, path], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1, ended.stderr
    assert "GeoError" in ended.stderr
    assert "damaged" in ended.stderr


def test_overrides_with_faults_are_refused_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "overrides.csv"
    path.write_text("10.0.0.1/8,BR\n\n192.0.2.1,UK\n")
    assert_refused("line 1: 10.0.0.1/8 has host bits set", overrides=path)
    assert_refused("line 3: country 'UK'", overrides=path)


def test_overrides_that_are_no_text_are_refused() -> None:
    assert_refused("can't decode", overrides=BUNDLED_DATABASE)


def test_overrides_may_start_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "overrides.csv"
    path.write_bytes("10.0.0.0/8,BR\r\n".encode("utf-8-sig"))
    assert open_geo(overrides=path).locate("10.0.0.1").country == "BR"


# --- what is followed while running


def test_nothing_is_reloaded_where_nothing_changed(
    database: Path, overrides: Path, events: Events
) -> None:
    geo = open_geo(database, overrides)
    assert not geo.reload()
    assert not open_geo().reload()
    assert events.named("geo_reloaded") == []


def test_a_new_database_is_followed(database: Path, events: Events) -> None:
    geo = open_geo(database)
    assert geo.locate("203.0.113.9").country == "BR"
    write_database(database, {"203.0.113.0/24": geoip2("DE")}, kind="Next")
    assert geo.locate("203.0.113.9").country == "BR"
    assert geo.reload()
    assert geo.locate("203.0.113.9").country == "DE"
    assert [fields["type"] for fields in events.named("geo_reloaded")] == ["Next"]


def test_new_overrides_are_followed(overrides: Path, events: Events) -> None:
    geo = open_geo(overrides=overrides)
    assert geo.locate("10.1.2.3").country == "BR"
    overrides.write_text("10.0.0.0/8,Jp\n# one fewer\n")
    assert geo.reload()
    assert geo.locate("10.1.2.3").country == "JP"
    assert [fields["overrides"] for fields in events.named("geo_reloaded")] == [1]


def test_a_database_that_turns_bad_keeps_the_last_good_one(database: Path, events: Events) -> None:
    geo = open_geo(database)
    good = database.read_bytes()
    for bad in (b"", good[: len(good) // 2], b"nonsense"):
        database.write_bytes(bad)
        assert not geo.reload()
        assert not geo.reload()
        assert geo.locate("203.0.113.9").country == "BR"
        assert geo.locate("203.0.113.77").country == "BR"
    [fields] = events.named("geo_database_bad")
    assert fields["path"] == database
    assert "not a MaxMind-format database" in fields["reason"]

    write_database(database, {"203.0.113.0/24": flat("DE")})
    assert geo.reload()
    assert geo.locate("203.0.113.9").country == "DE"
    assert len(events.named("geo_reloaded")) == 1


def test_overrides_that_turn_bad_keep_the_last_good_ones(overrides: Path, events: Events) -> None:
    geo = open_geo(overrides=overrides)
    overrides.write_text("10.0.0.0/8,Brazil\n")
    assert not geo.reload()
    assert not geo.reload()
    assert geo.locate("10.1.2.3").country == "BR"
    [fields] = events.named("geo_overrides_bad")
    assert fields["path"] == overrides
    assert "line 1: country 'Brazil'" in fields["reason"]

    overrides.write_text("10.0.0.0/8,DE\n")
    assert geo.reload()
    assert geo.locate("10.1.2.3").country == "DE"


def test_a_file_that_comes_back_unchanged_is_good_again(overrides: Path, events: Events) -> None:
    geo = open_geo(overrides=overrides)
    away = overrides.with_suffix(".away")
    for episode in (1, 2):
        overrides.rename(away)
        assert not geo.reload()
        assert not geo.reload()
        assert geo.locate("10.1.2.3").country == "BR"
        assert len(events.named("geo_overrides_bad")) == episode
        away.rename(overrides)
        assert geo.reload()
        assert not geo.reload()
        assert len(events.named("geo_reloaded")) == episode


def test_what_failed_for_lack_of_file_descriptors_is_tried_again(
    overrides: Path, events: Events
) -> None:
    geo = open_geo(overrides=overrides)
    overrides.write_text("10.0.0.0/8,DE\n")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        assert not geo.reload()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert "Too many open files" in events.named("geo_overrides_bad")[0]["reason"]
    assert geo.reload()
    assert geo.locate("10.1.2.3").country == "DE"


def test_one_bad_file_does_not_hold_back_the_other(
    database: Path, overrides: Path, events: Events
) -> None:
    geo = open_geo(database, overrides)
    overrides.unlink()
    write_database(database, {"203.0.113.0/24": flat("DE")})
    assert geo.reload()
    assert [geo.locate(ip).country for ip in ("203.0.113.9", "203.0.113.200")] == ["AR", "DE"]
    assert len(events.named("geo_overrides_bad")) == 1


def test_lookups_go_on_while_another_thread_reloads(database: Path) -> None:
    geo = open_geo(database)
    countries: list[str | None] = []
    done = threading.Event()

    def look_up() -> None:
        while not done.is_set():
            countries.append(geo.locate(f"203.0.113.{len(countries) % 250}").country)

    def wait_for_a_new_lookup() -> None:
        seen = len(countries) + 1  # one may be in progress
        wait_until(lambda: len(countries) > seen, "a lookup")

    thread = threading.Thread(target=look_up)
    thread.start()
    try:
        wait_for_a_new_lookup()
        for country in ["DE", "JP"] * 10:
            write_database(database, {"203.0.113.0/24": flat(country)})
            assert geo.reload()
            wait_for_a_new_lookup()
            assert countries[-1] == country
    finally:
        done.set()
        thread.join()
    assert set(countries) == {"BR", "DE", "JP"}


def test_reloads_leave_no_files_open_and_no_memory_mapped(database: Path) -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("edgeproxy-geo")

    geo = open_geo(database)
    gc.collect()
    before = len(os.listdir("/proc/self/fd")), mapped()
    for turn in range(20):
        write_database(database, {"203.0.113.0/24": flat("DE" if turn % 2 else "JP")})
        assert geo.reload()
        geo.locate("203.0.113.9")
    assert (len(os.listdir("/proc/self/fd")), mapped()) == before
    assert before[1] == 1


# --- what cannot hurt


TRUNCATE_UNDER_LOOKUPS = """
import os, sys, threading
from pathlib import Path
from edgeproxy.control.geoip import Geo, GeoSettings

path = Path(sys.argv[1])
geo = Geo(GeoSettings(path))
ips = [f"{a}.{b}.7.1" for a in range(1, 200) for b in range(200)]
countries = []
half = threading.Event()

def look_up():
    for ip in ips:
        countries.append(geo.locate(ip).country)
        if len(countries) == len(ips) // 2:
            half.set()
            truncated.wait()

truncated = threading.Event()
thread = threading.Thread(target=look_up)
thread.start()
half.wait()
os.truncate(path, 0)
truncated.set()
thread.join()
reloaded = geo.reload()
known = [country is not None for country in countries]
print(len(known), sum(known[: len(known) // 2]), sum(known[len(known) // 2 :]), reloaded)
"""


def test_truncating_the_database_in_place_does_not_kill_the_process(tmp_path: Path) -> None:
    path = tmp_path / "geo.mmdb"
    path.write_bytes(BUNDLED_DATABASE.read_bytes())
    ended = subprocess.run(
        [sys.executable, "-c", TRUNCATE_UNDER_LOOKUPS, path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    total, before, after, reloaded = ended.stdout.split()
    assert total == str(199 * 200)
    assert int(before) > 15_000
    assert int(after) > 15_000
    assert reloaded == "False"


def test_without_anonymous_memory_an_unlinked_file_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_database(tmp_path / "geo.mmdb", {"203.0.113.0/24": flat("BR")})
    monkeypatch.delattr(os, "memfd_create")
    geo = open_geo(path)
    os.truncate(path, 0)
    assert geo.locate("203.0.113.9").country == "BR"


@pytest.mark.parametrize("text", ["", "nonsense", "1.2.3.4.5", "::g", "::%", "1.2.3.4\0"])
def test_no_text_makes_a_lookup_raise(database: Path, overrides: Path, text: str) -> None:
    assert open_geo(database, overrides).locate(text).country is None


# --- what is told


def test_the_description_says_what_is_in_use(database: Path, overrides: Path) -> None:
    assert open_geo().description == {
        "database": "bundled",
        "type": "country ipvAll",
        "built": "2026-06-01",
        "overrides": 0,
    }
    assert open_geo(database, overrides).description == {
        "database": str(database),
        "type": "Test-Country",
        "built": time.strftime("%Y-%m-%d", time.gmtime()),
        "overrides": 2,
    }


@pytest.mark.parametrize(("age_days", "warnings"), [(0, 0), (89, 0), (92, 1)])
def test_an_old_database_of_the_operator_is_worth_a_warning(
    tmp_path: Path, events: Events, age_days: int, warnings: int
) -> None:
    networks = {"203.0.113.0/24": flat("BR")}
    path = write_database(tmp_path / "geo.mmdb", networks, age_days=age_days)
    open_geo(path)
    told = [(level, fields) for level, name, fields in events.all if name == "geo_database_old"]
    assert [level for level, _ in told] == ["warning"] * warnings
    assert [fields["days"] for _, fields in told] == [age_days] * warnings


def test_the_age_of_the_bundled_database_is_no_warning(events: Events) -> None:
    open_geo()
    assert {level for level, _, _ in events.all} <= {"debug"}


def test_importing_the_module_does_not_import_the_reader() -> None:
    source = "import sys, edgeproxy.control.geoip; sys.exit('maxminddb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == 0
