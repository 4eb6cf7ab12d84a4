"""Metrics, tried on a running proxy: by hand, by promtool, by a real Prometheus."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.system.pop import Pop
from tests.system.proxy import SERVE
from tests.waiting import wait_until

pytestmark = pytest.mark.system

METRICS = {"EDGEPROXY_METRICS_ENABLED": "yes", "EDGEPROXY_METRICS_LISTEN_ADDR": "127.0.0.1:0"}


def page_of(pop: Pop) -> str:
    """Return where the metrics of the proxy are."""
    told = pop.proxy.wait_for("metrics")
    return f"http://{told['listen']}{told['path']}"


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def sample(text: str, name: str) -> float:
    """Return the value of one sample, as it is written there."""
    (found,) = (line for line in text.splitlines() if line.startswith(name + " "))
    return float(found.rpartition(" ")[2])


def test_what_was_served_is_counted(pop: Pop) -> None:
    pop.dead_backend("dead")
    pop.backend("us-1", "us")
    pop.serve(**METRICS)
    url = page_of(pop)
    for _ in range(3):
        assert pop.reached() == "us-1"
    pop.holder()

    text = read(url)
    labels = '{backend="us-1",region="us"}'
    assert sample(text, "edgeproxy_connections_total") == 4
    assert sample(text, "edgeproxy_connections_active") == 1
    assert sample(text, "edgeproxy_bytes_sent_total") == 4 * len("us-1\n")
    assert sample(text, "edgeproxy_bytes_received_total") == 0
    assert sample(text, f"edgeproxy_backend_connections_total{labels}") == 4
    assert sample(text, f"edgeproxy_backend_connections_active{labels}") == 1
    assert sample(text, f"edgeproxy_backend_rtt_seconds_count{labels}") == 4
    assert sample(text, 'edgeproxy_backend_errors_total{backend="dead",region="sa"}') == 1
    ended = ("edgeproxy_session_seconds", "edgeproxy_first_byte_seconds")
    wait_until(
        lambda: [sample(read(url), f"{name}_count") for name in ended] == [3, 3],
        "the sessions to be over",
    )
    decisions = [line for line in text.splitlines() if line.startswith("edgeproxy_decisions_total")]
    assert sum(float(line.rpartition(" ")[2]) for line in decisions) == 4 + 1  # with the failover
    assert all('client_region="' in line and 'backend_region="' in line for line in decisions)
    for kind, name in [
        ("counter", "edgeproxy_connections_total"),
        ("gauge", "edgeproxy_connections_active"),
        ("counter", "edgeproxy_bytes_sent_total"),
        ("counter", "edgeproxy_bytes_received_total"),
        ("counter", "edgeproxy_backend_connections_total"),
        ("gauge", "edgeproxy_backend_connections_active"),
        ("counter", "edgeproxy_backend_errors_total"),
        ("histogram", "edgeproxy_backend_rtt_seconds"),
    ]:
        assert f"# TYPE {name} {kind}\n" in text


def test_the_bytes_of_an_open_session_count_while_it_lasts(pop: Pop) -> None:
    pop.backend("sa-1")
    pop.serve(**METRICS)
    client, _ = pop.holder()
    client.send(b"x" * 10_000)
    name = 'edgeproxy_backend_bytes_received_total{backend="sa-1",region="sa"}'
    wait_until(lambda: sample(read(page_of(pop)), name) == 10_000, "the bytes to be counted")


def test_a_scraper_that_never_reads_holds_up_nobody(pop: Pop) -> None:
    pop.backend("sa-1")
    pop.serve(**METRICS)
    host, _, port = pop.proxy.wait_for("metrics")["listen"].rpartition(":")
    for _ in range(20):
        deaf = pop.keep(socket.create_connection((host, int(port)), 10))
        deaf.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
    assert pop.reached() == "sa-1"
    assert "edgeproxy_connections_total 1.0" in read(page_of(pop))


def test_only_those_who_are_allowed_can_read_it(pop: Pop) -> None:
    pop.backend("sa-1")
    pop.serve(**METRICS, EDGEPROXY_METRICS_ALLOW="192.0.2.0/24, 127.0.0.2")
    url = page_of(pop)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        read(url)
    refused = pop.proxy.wait_for("page_refused")
    assert (refused["caller"], refused["setting"]) == ("127.0.0.1", "EDGEPROXY_METRICS_ALLOW")
    host, _, port = pop.proxy.wait_for("metrics")["listen"].rpartition(":")
    with socket.create_connection((host, int(port)), 10, ("127.0.0.2", 0)) as allowed:
        allowed.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert allowed.recv(12) == b"HTTP/1.1 200"


def test_silent_connections_leave_descriptors_to_clients_and_the_log_to_the_proxy(
    pop: Pop,
) -> None:
    """More of them than there are descriptors, at every port of the control plane."""
    pop.backend("sa-1")
    proxy = pop.serve_with(
        SERVE,
        max_descriptors=256,
        **METRICS,
        EDGEPROXY_API_ENABLED="yes",
        EDGEPROXY_API_LISTEN_ADDR="127.0.0.1:0",
    )
    for event in ("metrics", "api"):
        host, _, port = proxy.wait_for(event)["listen"].rpartition(":")
        for number in range(300):
            silent = pop.keep(socket.socket())
            silent.settimeout(10)
            silent.bind((f"127.0.0.{2 + number % 20}", 0))
            silent.connect((host, int(port)))
    for _ in range(20):
        assert pop.reached() == "sa-1"
    wait_until(lambda: _is_read(page_of(pop)), "the page")
    assert not proxy.foreign
    assert len(proxy.seen("internal_fault")) + len(proxy.seen("page_refused")) < 10


def _is_read(url: str) -> bool:
    try:
        return "edgeproxy_connections_total" in read(url)
    except OSError:
        return False


def test_an_address_that_cannot_be_had_is_named_before_anybody_is_served(pop: Pop) -> None:
    taken = pop.keep(socket.create_server(("127.0.0.1", 0)))
    address = f"127.0.0.1:{taken.getsockname()[1]}"
    proxy = pop.begin_to_serve(
        EDGEPROXY_METRICS_ENABLED="yes", EDGEPROXY_METRICS_LISTEN_ADDR=address
    )
    assert proxy.wait_for_exit() == 1
    assert "EDGEPROXY_METRICS_LISTEN_ADDR" in "\n".join(proxy.foreign)
    assert not proxy.seen("ready")


def test_promtool_finds_nothing_wrong(pop: Pop) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: ./task packages")
    pop.backend("sa-1")
    pop.serve(
        **METRICS,
        EDGEPROXY_HEALTH_CHECK_ENABLED="1",
        EDGEPROXY_CIRCUIT_BREAKER_ENABLED="1",
    )
    pop.reached()
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=read(page_of(pop)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_real_prometheus_reads_them(pop: Pop, tmp_path: Path) -> None:
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        pytest.skip("prometheus is not installed: ./task packages")
    pop.backend("sa-1")
    pop.serve(**METRICS)
    assert pop.reached() == "sa-1"
    target = pop.proxy.wait_for("metrics")["listen"]
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 200ms}\n"
        "scrape_configs:\n"
        "- job_name: edgeproxy\n"
        f"  static_configs: [{{targets: ['{target}']}}]\n"
    )
    port = free_port()
    with subprocess.Popen(
        [
            prometheus,
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            query = urllib.parse.quote('edgeproxy_backend_connections_total{backend="sa-1"}')
            url = f"http://127.0.0.1:{port}/api/v1/query?query={query}"

            def answers() -> bool:
                try:
                    found = json.loads(read(url))["data"]["result"]
                except OSError:
                    return False
                return [each["value"][1] for each in found] == ["1"]

            wait_until(answers, "Prometheus to know it")
        finally:
            server.terminate()
