"""What `edgeproxy demo --keep` offers to try are commands that can be pasted."""

from __future__ import annotations

import shlex

from edgeproxy.cli.demo.commands import Places, commands_to_try

VARIABLES = {
    "EDGEPROXY_DB_PATH": "/tmp/my files/routing.db",
    "EDGEPROXY_GEO_OVERRIDES": "/tmp/my files/countries.csv",
    "EDGEPROXY_REGION": "sa",
    "EDGEPROXY_LISTEN_ADDR": "127.0.0.1:0",
    "EDGEPROXY_CONTROL_SOCKET": "/tmp/my files/control",
}


def test_paths_survive_a_shell_and_addresses_are_those_of_the_proxy() -> None:
    places = Places("127.0.0.1:4711", "127.0.0.1:4712", "127.0.0.1:4713", "/tmp/my files/proxy.log")
    text = commands_to_try("edgeproxy", places, VARIABLES)
    commands = [shlex.split(line, comments=True) for line in text.splitlines() if line[:1] == " "]
    assert ["export", "EDGEPROXY_DB_PATH=/tmp/my files/routing.db"] in commands
    assert ["export", "EDGEPROXY_GEO_OVERRIDES=/tmp/my files/countries.csv"] in commands
    assert ["tail", "-f", "/tmp/my files/proxy.log"] in commands
    assert ["curl", "--interface", "127.55.0.1", "http://127.0.0.1:4711"] in commands
    assert ["nc", "-s", "127.49.0.1", "127.0.0.1", "4711"] in commands
    assert ["edgeproxy", "explain", "127.81.0.1"] in commands
    assert ["export", "EDGEPROXY_CONTROL_SOCKET=/tmp/my files/control"] in commands
    assert ["curl", "http://127.0.0.1:4712/api/v1/backends"] in commands
    assert ["curl", "http://127.0.0.1:4713/metrics"] in commands
