"""What users write about listeners is read, shown in its normal form, or refused with a reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from edgeproxy.listeners import spec
from edgeproxy.listeners.spec import Listener, UnixAddress
from edgeproxy.values import BadValueError, ListenAddress

Parser = Callable[[str], Sequence[object]]


def test_each_mode_of_a_listener() -> None:
    parsed = spec.listeners(
        "0.0.0.0:80=web, [::]:443 = sni,127.0.0.1:81=*,[::1]:82=tls:*,unix:/run/x=tls:db,"
        "127.0.0.1:83=tcp:db"
    )
    assert parsed == (
        Listener(ListenAddress("0.0.0.0", 80), spec.TCP, "web"),
        Listener(ListenAddress("::", 443), spec.SNI),
        Listener(ListenAddress("127.0.0.1", 81), spec.TCP),
        Listener(ListenAddress("::1", 82), spec.TLS),
        Listener(UnixAddress("/run/x"), spec.TLS, "db"),
        Listener(ListenAddress("127.0.0.1", 83), spec.TCP, "db"),
    )
    assert [each.mode for each in parsed] == ["web", "sni", "*", "tls:*", "tls:db", "db"]


def test_port_zero_may_stand_more_than_once() -> None:
    assert len(spec.listeners("127.0.0.1:0=a,127.0.0.1:0=b")) == 2
    with pytest.raises(BadValueError, match="each address may occur only once"):
        spec.listeners("127.0.0.1:80=a,127.0.0.1:80=b")


@pytest.mark.parametrize(
    ("parser", "text", "normal"),
    [
        (spec.listeners, " 127.0.0.1:80 = web ,, [0:0::0]:81=sni,", "127.0.0.1:80=web,[::]:81=sni"),
        (
            spec.routes,
            "WWW.Example.com. = web,*.b=any,*=rest",
            "www.example.com=web,*.b=any,*=rest",
        ),
        (
            spec.listeners,
            "127.0.0.1:1=tcp:tls,[::1]:1=tcp:sni",
            "127.0.0.1:1=tcp:tls,[::1]:1=tcp:sni",
        ),
        (spec.routes, "a.b=web,A.B=web", "a.b=web"),
        (spec.proxy_protocol_out, "v2", "v2"),
        (spec.proxy_protocol_out, " web = v1 , off", "web=v1,off"),
        (spec.backend_tls, "Backend.Internal, db=DB.internal", "backend.internal,db=db.internal"),
        (spec.backend_tls, "", ""),
    ],
)
def test_the_normal_form_means_the_same(parser: Parser, text: str, normal: str) -> None:
    parsed = parser(text)
    assert ",".join(map(str, parsed)) == normal
    assert parser(normal) == parsed


@pytest.mark.parametrize(
    ("parser", "text", "reason"),
    [
        (spec.listeners, "127.0.0.1:1=tls", "say for which app: tls:APP, or tls:[*] for all apps"),
        (spec.routes, "www.example.com", "'www.example.com' is not NAME=APP"),
        (spec.routes, "a.b=*", "'a.b=[*]' is not NAME=APP"),
        (spec.routes, "*.*=web", "allowed is a host name"),
        (spec.routes, "*=a,*=b", "^[*] is given twice, with different values$"),
        (spec.proxy_protocol_out, "v3", "'v3': allowed are off, v1, v2, for one app as APP=VERS"),
        (spec.proxy_protocol_out, "=v1", "'=v1': allowed"),
        (spec.proxy_protocol_out, "v1,v2", "^the value for all apps is given twice"),
        (spec.proxy_protocol_out, "db=v1,db=off", "^db is given twice"),
        (spec.backend_tls, "192.0.2.1", "'192.0.2.1': allowed is the host name in the certificate"),
        (spec.backend_tls, "a:b=c.internal", "'a:b=c.internal': allowed"),
        (spec.backend_tls, "a.internal,b.internal", "^the value for all apps is given twice"),
    ],
)
def test_what_cannot_be_read_is_named_with_what_is_allowed(
    parser: Parser, text: str, reason: str
) -> None:
    with pytest.raises(BadValueError, match=reason):
        parser(text)
