"""The configuration file is followed while the proxy runs; what is wrong in it changes nothing."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.pop import BRAZIL, GERMANY, Pop
from tests.system.proxy import RunningProxy, run_edgeproxy
from tests.waiting import wait_until

pytestmark = pytest.mark.system


def serve(pop: Pop, text: str, **variables: str) -> tuple[RunningProxy, Path]:
    path = pop.folder / "edgeproxy.toml"
    path.write_text(text)
    return pop.serve(
        EDGEPROXY_CONFIG=str(path),
        EDGEPROXY_CONFIG_WATCH_ENABLED="true",
        EDGEPROXY_CONFIG_WATCH_INTERVAL_SECS="0.2",
        **variables,
    ), path


def test_who_may_enter_changes_at_once(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy, path = serve(pop, "")
    assert pop.reached(GERMANY) == "sa-1"
    path.write_text(f'[entrance]\ndeny = ["{GERMANY}"]\n[rate_limit]\nenabled = true\nburst = 1\n')
    assert proxy.wait_for("config_reloaded")["variables"] == (
        "EDGEPROXY_DENY,EDGEPROXY_RATE_LIMIT_ENABLED,EDGEPROXY_RATE_LIMIT_BURST"
    )
    wait_until(lambda: pop.reached(GERMANY) == "", "the list to hold")
    assert pop.reached(BRAZIL) == "sa-1"


def test_weights_and_limits_of_backends_are_laid_over_the_database(pop: Pop) -> None:
    pop.backend("sa-1")
    pop.backend("us-1", "us")
    proxy, path = serve(pop, '[backends."sa-1"]\nweight = 0\n')
    assert pop.reached() == "us-1"
    path.write_text('[backends."sa-1"]\nhard_limit = 1\n')
    reloaded = proxy.wait_for("config_reloaded")
    assert (reloaded["backends"], "variables" in reloaded) == ("sa-1", False)
    _, held = pop.holder()
    assert held == "sa-1"
    assert pop.reached() == "us-1"
    path.write_text("")
    wait_until(lambda: pop.reached() == "sa-1", "the database's word")


def test_probes_change_and_differ_between_backends(pop: Pop) -> None:
    pop.backend("sa-1")
    pop.backend("us-1", "us")
    proxy, path = serve(pop, "")
    health = (
        "[health_check]\nenabled = true\ninterval_secs = 0.1\ntype = 'exec'\ncommand = 'true'\n"
    )
    path.write_text(health + '[backends."sa-1"]\nhealth_check_type = "http"\n')
    proxy.wait_for("backend_down", backend="sa-1")
    assert pop.reached() == "us-1"
    path.write_text(health)
    proxy.wait_for("backend_up", backend="sa-1")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[rate_limit]\nburst = 0\n", "line 2: rate_limit.burst"),
        ("[rate_limit]\nburst = 0\nwindow_secs = 0\n", "0.001 or more; "),
        ("[rate_limit\n", "is not valid TOML"),
        ('[backends."sa-1"]\nwieght = 3\n', "did you mean weight?"),
    ],
)
def test_what_does_not_validate_changes_nothing(pop: Pop, text: str, reason: str) -> None:
    pop.backend("sa-1")
    proxy, path = serve(pop, f'[entrance]\ndeny = ["{GERMANY}"]\n')
    path.write_text(text)
    told = proxy.wait_for("config_bad")["reason"]
    assert reason in told
    assert "\n" not in told
    assert pop.reached(GERMANY) == ""
    assert pop.reached(BRAZIL) == "sa-1"


def test_what_needs_a_restart_or_is_pinned_is_named(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy, path = serve(pop, "", EDGEPROXY_MAX_CONNS_PER_CLIENT="7")
    path.write_text("[entrance]\nmax_conns_per_client = 1\n[proxy]\nconnect_attempts = 9\n")
    assert proxy.wait_for("config_needs_restart")["variables"] == "EDGEPROXY_CONNECT_ATTEMPTS"
    assert proxy.wait_for("config_pinned")["variables"] == "EDGEPROXY_MAX_CONNS_PER_CLIENT"
    pop.holder(BRAZIL)
    assert pop.reached(BRAZIL) == "sa-1"


def _in_place(path: Path, text: str) -> None:
    path.write_text(text)


def _atomically(path: Path, text: str) -> None:
    other = path.with_suffix(".new")
    other.write_text(text)
    other.replace(path)


def _anew(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def _by_link(path: Path, text: str) -> None:
    """As Kubernetes does it: the file is a link into a folder that is a link."""
    folder = path.parent / f"..{abs(hash(text))}"
    folder.mkdir()
    (folder / path.name).write_text(text)
    data = path.parent / "..data"
    link = path.parent / "..data_tmp"
    link.symlink_to(folder.name)
    link.replace(data)
    if not path.is_symlink():
        path.unlink()
        path.symlink_to(Path("..data") / path.name)


@pytest.mark.parametrize("change", [_in_place, _atomically, _anew, _by_link])
def test_every_way_to_change_a_file_is_noticed(
    pop: Pop, change: Callable[[Path, str], None]
) -> None:
    pop.backend("sa-1")
    proxy, path = serve(pop, "")
    for number in range(1, 4):
        change(path, f"[entrance]\nmax_conns_per_client = {number}\n")
        proxy.wait_for("config_reloaded", count=number)
    assert not proxy.seen("config_bad")


def test_a_file_that_is_gone_leaves_what_was_in_force(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy, path = serve(pop, f'[entrance]\ndeny = ["{GERMANY}"]\n')
    path.unlink()
    assert "cannot be read" in proxy.wait_for("config_bad")["reason"]
    assert pop.reached(GERMANY) == ""


def test_sighup_reads_the_file_though_nobody_watches_it(pop: Pop) -> None:
    pop.backend("sa-1")
    path = pop.folder / "edgeproxy.toml"
    path.write_text("")
    proxy = pop.serve(EDGEPROXY_CONFIG=str(path))
    path.write_text(f'[entrance]\ndeny = ["{GERMANY}"]\n')
    proxy.send(signal.SIGHUP)
    proxy.wait_for("config_reloaded")
    wait_until(lambda: pop.reached(GERMANY) == "", "the list to hold")


def test_show_prints_a_complete_file_that_says_the_same(pop: Pop) -> None:
    given = {
        "EDGEPROXY_DENY": "192.0.2.0/24,2001:db8::/32",
        "EDGEPROXY_REGION": "eu",
        "EDGEPROXY_TLS_ALPN": "h2,http/1.1",
        "EDGEPROXY_RATE_LIMIT_WINDOW_SECS": "0.5",
        "EDGEPROXY_HEALTH_CHECK_COMMAND": 'check "two words"',
    }
    path = pop.folder / "written.toml"
    path.write_text(run_edgeproxy("config", "show", "--toml", folder=pop.folder, **given).stdout)
    asked = run_edgeproxy("config", "show", "--json", folder=pop.folder, **given).stdout
    again = run_edgeproxy(
        "config", "show", "--json", folder=pop.folder, EDGEPROXY_CONFIG=str(path)
    ).stdout
    assert _values(again) == _values(asked)
    assert os.path.getsize(path) > 1000


def _values(shown: str) -> dict[str, str]:
    return {each["variable"]: each["value"] for each in json.loads(shown)}
