"""The geo database and the override file: refused when bad at start, kept when they turn bad."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet  # type: ignore[import-untyped]

from tests.system.pop import BRAZIL, Pop
from tests.system.proxy import run_edgeproxy
from tests.waiting import PAUSE

pytestmark = pytest.mark.system

PUBLIC = "203.0.113.7"


def write_database(path: Path, country: str) -> Path:
    """Put a database that knows only where PUBLIC is in the place of `path`, at once."""
    writer = MMDBWriter(6, "Test-Country", ipv4_compatible=True)
    writer.insert_network(IPSet(["203.0.113.0/24"]), {"country": {"iso_code": country}})
    new = path.with_suffix(".new")
    writer.to_db_file(str(new))
    return new.replace(path)


def said_at_the_start(path: Path, variable: str) -> str:
    """Return what a proxy says that cannot use this file, and does not start."""
    done = run_edgeproxy("serve", folder=path.parent, **{variable: str(path)})
    assert done.returncode in {1, 2}
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr
    assert "ready" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("content", [None, b"", b"this is no database\n" * 100])
def test_a_geo_database_that_cannot_be_used_ends_the_start(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "geo.mmdb"
    if content is not None:
        path.write_bytes(content)

    assert "MaxMind" in said_at_the_start(path, "EDGEPROXY_GEOIP_PATH")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "No such file"),
        ("127.0.0.0/8, BR\n127.0.0.0/40, BR\n", "line 2"),
        ("127.0.0.0/8, Brazil\n", "'Brazil'"),
        ("127.0.0.0/8\n", "cidr,country"),
    ],
    ids=["missing", "prefix", "country", "fields"],
)
def test_an_override_file_that_cannot_be_used_ends_the_start(
    tmp_path: Path, content: str | None, complaint: str
) -> None:
    path = tmp_path / "overrides.csv"
    if content is not None:
        path.write_text(content)

    assert complaint in said_at_the_start(path, "EDGEPROXY_GEO_OVERRIDES")


def test_a_changed_override_file_is_followed(pop: Pop) -> None:
    pop.backend("sa-1", "sa")
    pop.backend("eu-1", "eu")
    proxy = pop.serve(EDGEPROXY_REGION="us", EDGEPROXY_BINDING_TTL_SECS="0")
    assert pop.reached(BRAZIL) == "sa-1"

    pop.overrides.write_text("127.10.0.0/16, DE\n")

    proxy.wait_for("geo_reloaded", overrides="1")
    assert pop.reached(BRAZIL) == "eu-1"


def test_an_override_file_that_turns_bad_or_vanishes_keeps_the_last_good_one(pop: Pop) -> None:
    pop.backend("sa-1", "sa")
    pop.backend("eu-1", "eu")
    proxy = pop.serve(EDGEPROXY_REGION="us", EDGEPROXY_BINDING_TTL_SECS="0")

    pop.overrides.write_text("127.10.0.0/16, DE\nwhat is this\n")
    fault = proxy.wait_for("geo_overrides_bad", level="warning")
    assert "line 2" in fault["reason"]
    assert pop.reached(BRAZIL) == "sa-1"

    pop.overrides.unlink()
    PAUSE.wait(0.5)
    assert pop.reached(BRAZIL) == "sa-1"
    assert len(proxy.seen("geo_overrides_bad")) == 1, "said once per episode"

    pop.overrides.write_text("127.10.0.0/16, DE\n")
    proxy.wait_for("geo_reloaded")
    assert pop.reached(BRAZIL) == "eu-1"


def test_the_operators_database_decides_instead_of_the_bundled_one(tmp_path: Path) -> None:
    path = write_database(tmp_path / "geo.mmdb", "JP")
    run_edgeproxy("db", "init", folder=tmp_path)
    run_edgeproxy("node", "add", "ap-1", "ap", "127.0.0.1", folder=tmp_path)

    done = run_edgeproxy(
        *("explain", PUBLIC, "--json"), folder=tmp_path, EDGEPROXY_GEOIP_PATH=str(path)
    )

    origin = json.loads(done.stdout)["origin"]
    assert (origin["country"], origin["region"], origin["source"]) == ("JP", "ap", "database")


def test_a_changed_geo_database_is_followed_and_a_bad_one_is_not(pop: Pop) -> None:
    path = write_database(pop.folder / "geo.mmdb", "JP")
    pop.backend("sa-1")
    proxy = pop.serve(EDGEPROXY_GEOIP_PATH=str(path))
    assert proxy.seen("geo", database=str(path))

    write_database(path, "BR")
    proxy.wait_for("geo_reloaded")

    path.write_bytes(b"rubbish" * 1000)  # in place, as a careless copy does
    fault = proxy.wait_for("geo_database_bad", level="warning")
    assert str(path) in fault["reason"]
    os.truncate(path, 0)
    assert pop.reached() == "sa-1"

    write_database(path, "DE")
    proxy.wait_for("geo_reloaded", 2)
    assert pop.reached() == "sa-1"
