"""The commands as people type them, beside a proxy that follows what they do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edgeproxy.engine.choice import best_kind
from edgeproxy.version import VERSION
from tests.system.backends import Backend
from tests.system.pop import ARGENTINA, BRAZIL, GERMANY, JAPAN, NOWHERE, UNITED_STATES, Pop
from tests.system.proxy import EDGEPROXY, run_edgeproxy

pytestmark = pytest.mark.system

SCRIPTS = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        (*EDGEPROXY, "serve"),
        (str(SCRIPTS / "edgeproxy"), "serve"),
        (str(SCRIPTS / "edge-proxy"),),
    ],
    ids=["python -m edgeproxy serve", "edgeproxy serve", "edge-proxy"],
)
def test_the_proxy_starts_under_each_of_its_names(pop: Pop, command: tuple[str, ...]) -> None:
    pop.backend("sa-1")
    pop.serve_with(command)
    assert pop.reached() == "sa-1"


@pytest.mark.parametrize("name", ["edgeproxy", "edge-proxy"])
def test_each_name_tells_its_version_and_engine(tmp_path: Path, name: str) -> None:
    done = run_edgeproxy("--version", folder=tmp_path, command=[str(SCRIPTS / name)])
    engine = best_kind()
    assert (done.returncode, done.stdout) == (0, f"edgeproxy {VERSION} (engine: {engine})\n")


@pytest.mark.parametrize("words", [(), ("walk",), ("node",), ("serve", "--fast"), ("explain",)])
def test_wrong_usage_is_told_and_ends_with_2(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = run_edgeproxy(*words, folder=tmp_path)
    assert done.returncode == 2
    assert "usage:" in done.stderr
    assert done.stdout == ""


def test_a_node_is_added_disabled_enabled_removed_and_deleted_while_the_proxy_runs(
    pop: Pop,
) -> None:
    proxy = pop.serve()
    backend = pop.keep(Backend("sa-1"))
    backend.start()

    for number, (words, expected) in enumerate(
        [
            (("add", "sa-1", "sa", backend.host, str(backend.port), "2"), "sa-1"),
            (("disable", "sa-1"), ""),
            (("enable", "sa-1"), "sa-1"),
            (("remove", "sa-1"), ""),
            (("enable", "sa-1"), "sa-1"),
            (("weight", "sa-1", "0"), ""),
            (("weight", "sa-1", "5"), "sa-1"),
            (("limits", "sa-1", "1", "1"), "sa-1"),
            (("delete", "sa-1"), ""),
        ],
        start=len(proxy.seen("table_published")) + 1,
    ):
        done = run_edgeproxy("node", *words, folder=pop.folder)
        assert done.returncode == 0, done.stderr
        proxy.wait_for("table_published", number)
        assert pop.reached() == expected, words


def test_what_cannot_be_done_ends_with_1_and_what_is_not_allowed_with_2(pop: Pop) -> None:
    pop.backend("sa-1")
    before = pop.database.read_bytes()

    for words, code in (
        (("node", "enable", "nobody"), 1),
        (("node", "add", "sa-1", "sa", "10.0.0.1"), 1),
        (("db", "init"), 1),
        (("node", "add", "sa-2", "sa", "127.0.0.1", "70000"), 2),
        (("node", "add", "sa-2", "sa", "localhost"), 2),
        (("node", "weight", "sa-1", "-1"), 2),
        (("node", "limits", "sa-1", "5", "4"), 2),
    ):
        done = run_edgeproxy(*words, folder=pop.folder)
        assert (done.returncode, done.stdout) == (code, ""), words
        assert done.stderr.startswith("edgeproxy: "), words
        assert "Traceback" not in done.stderr
    assert pop.database.read_bytes() == before


def test_explain_names_the_backend_that_the_client_then_reaches(pop: Pop) -> None:
    for region in ("sa", "us", "eu"):
        pop.backend(f"{region}-1", region)
    environment = {"EDGEPROXY_GEO_OVERRIDES": str(pop.overrides), "EDGEPROXY_REGION": "eu"}
    pop.serve(**environment)

    for source in (BRAZIL, ARGENTINA, UNITED_STATES, GERMANY, JAPAN, NOWHERE):
        done = run_edgeproxy("explain", source, "--json", folder=pop.folder, **environment)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["backend"] == pop.reached(source)


def test_explain_says_where_the_client_is_and_why_others_were_not_chosen(pop: Pop) -> None:
    pop.backend("sa-1", "sa")
    pop.backend("sa-2", "sa", healthy=0)
    pop.backend("us-1", "us")

    done = run_edgeproxy(
        *("explain", BRAZIL), folder=pop.folder, EDGEPROXY_GEO_OVERRIDES=str(pop.overrides)
    )

    assert done.returncode == 0
    assert "BR" in done.stdout
    assert "127.10.0.0/16" in done.stdout
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert "chosen" in lines["sa-1"]
    assert "unhealthy" in lines["sa-2"]
    assert "us-1" in lines


def test_explain_ends_with_1_where_the_client_would_be_refused(pop: Pop) -> None:
    pop.backend("sa-1", app="shop")

    assert run_edgeproxy("explain", "192.0.2.1", folder=pop.folder).returncode == 0
    refused = run_edgeproxy("explain", "192.0.2.1", "--app", "blog", folder=pop.folder)
    assert refused.returncode == 1
    assert "refused" in refused.stdout


def test_explain_refuses_what_is_no_address_and_a_missing_database(tmp_path: Path) -> None:
    no_address = run_edgeproxy("explain", "300.1.1.1", folder=tmp_path)
    live = run_edgeproxy("explain", "--live", "300.1.1.1", folder=tmp_path)
    assert (live.returncode, live.stderr) == (no_address.returncode, no_address.stderr)
    assert (no_address.returncode, no_address.stdout) == (2, "")
    assert "'300.1.1.1'" in no_address.stderr

    no_database = run_edgeproxy("explain", "192.0.2.1", folder=tmp_path)
    assert (no_database.returncode, no_database.stdout) == (1, "")
    assert "routing.db does not exist" in no_database.stderr
    assert not list(tmp_path.iterdir()), "a question makes no database"
