"""The configuration knows every listener, whichever way it was asked for."""

from __future__ import annotations

import pytest

from edgeproxy.config import load as config

LISTEN = {"EDGEPROXY_LISTEN_ADDR": "127.0.0.1:80", "EDGEPROXY_APP": "web"}
TLS = {"EDGEPROXY_TLS_ENABLED": "true", "EDGEPROXY_TLS_LISTEN_ADDR": "127.0.0.1:443"}
LISTENERS = {"EDGEPROXY_LISTENERS": "127.0.0.1:81=db,127.0.0.1:82=sni"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ["0.0.0.0:8080=*"]),
        (LISTEN, ["127.0.0.1:80=web"]),
        (LISTEN | TLS, ["127.0.0.1:80=web", "127.0.0.1:443=tls:web"]),
        (LISTEN | LISTENERS, ["127.0.0.1:81=db", "127.0.0.1:82=sni"]),
        (
            LISTEN | TLS | LISTENERS,
            ["127.0.0.1:81=db", "127.0.0.1:82=sni", "127.0.0.1:443=tls:web"],
        ),
    ],
)
def test_all_listeners_are_one_list(variables: dict[str, str], expected: list[str]) -> None:
    loaded = config.load(variables).config
    settings = loaded.listen_settings()
    assert [str(each) for each in settings.listen] == expected
    assert settings.speaks_tls == any("=tls:" in each for each in expected)
    # What the user wrote stays what it is: a reload compares it.
    written = expected[:2] if "EDGEPROXY_LISTENERS" in variables else []
    assert [str(each) for each in loaded.listeners.listen] == written


def test_the_other_settings_of_listeners_stay() -> None:
    loaded = config.load({"EDGEPROXY_ROUTES": "*=web", "EDGEPROXY_PROXY_PROTOCOL_OUT": "db=v1"})
    settings = loaded.config.listen_settings()
    assert [str(each) for each in settings.routes] == ["*=web"]
    assert settings.sends_proxy_header
    assert (
        not config.load({"EDGEPROXY_PROXY_PROTOCOL_OUT": "off"})
        .config.listen_settings()
        .sends_proxy_header
    )
