"""Who may call the API, and what happens to those who send anything else."""

from __future__ import annotations

import asyncio
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.store.editing import execute
from tests.system.api import Api, running, serve, serve_with
from tests.system.pop import Pop
from tests.system.proxy import run_edgeproxy
from tests.waiting import wait_until

pytestmark = pytest.mark.system

TOKEN = "s3cret-t0ken"
REGISTER = "/api/v1/register"
GOOD = {"id": "a", "app": "myapp", "region": "sa", "ip": "10.0.0.1", "port": 80}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with closing(Pop(tmp_path_factory.mktemp("pop"))) as pop:
        yield serve(pop)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": None}, "id"),
        ({"id": ""}, "id"),
        ({"id": "  "}, "id"),
        ({"id": "x" * 129}, "id"),
        ({"id": "a\nb"}, "id"),
        ({"id": 5}, "id"),
        ({"app": "\u202e"}, "app"),
        ({"region": "EU"}, "region"),
        ({"region": "a;b"}, "region"),
        ({"ip": "example.com"}, "ip"),
        ({"ip": "10.0.0.0/8"}, "ip"),
        ({"ip": "0.0.0.0"}, "ip"),
        ({"ip": "224.0.0.1"}, "ip"),
        ({"ip": "fe80::1%eth0"}, "ip"),
        ({"ip": 167772161}, "ip"),
        ({"port": 0}, "port"),
        ({"port": 65536}, "port"),
        ({"port": "80"}, "port"),
        ({"port": True}, "port"),
        ({"port": 80.5}, "port"),
        ({"port": 10**30}, "port"),
        ({"country": "Germany"}, "country"),
        ({"country": "D1"}, "country"),
        ({"country": "zz"}, "country"),
        ({"weight": -1}, "weight"),
        ({"weight": 1001}, "weight"),
        ({"soft_limit": 200, "hard_limit": 100}, "soft_limit"),
        ({"hard_limit": -5}, "hard_limit"),
        ({"wieght": 3}, "wieght"),
    ],
)
def test_a_wrong_field_is_named_and_nothing_is_stored(
    shared: Api, change: dict[str, object], field: str
) -> None:
    answer = shared.ask("POST", REGISTER, GOOD | change)
    assert (answer.status, answer.said["field"]) == (400, field), answer.said
    assert len(answer.said["error"]) < 500
    assert shared.listed() == {}


@pytest.mark.parametrize("field", ["id", "app", "region", "ip", "port"])
def test_a_missing_field_is_named(shared: Api, field: str) -> None:
    body = {name: each for name, each in GOOD.items() if name != field}
    answer = shared.ask("POST", REGISTER, body)
    assert (answer.status, answer.said["field"]) == (400, field)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"5",
        b'"x"',
        b"\xff\xfe",
        b'{"id": "\xff"}',
        b'{"id": "\\ud800", "app": "a", "region": "sa", "ip": "10.0.0.1", "port": 1}',
        b"[" * 50_000,
        b'{"a":' * 10_000,
        b"\x00" * 1000,
        b"9" * 60_000,
        b"NaN",
        b'{"id": "a", "app": "a", "region": "sa", "ip": "10.0.0.1", "port": 1, "port": 2}',
    ],
)
def test_garbage_is_refused_in_json(shared: Api, raw: bytes) -> None:
    answer = shared.ask("POST", REGISTER, raw)
    assert answer.status == 400
    assert answer.said["error"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_64_kb_is_refused(shared: Api, chunked: bool) -> None:
    body = b" " * 65_537
    head = b"POST /api/v1/register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    if chunked:
        sent = head + b"Transfer-Encoding: chunked\r\n\r\n10001\r\n" + body + b"\r\n0\r\n\r\n"
    else:
        sent = head + b"Content-Length: 65537\r\n\r\n" + body
    assert said(shared, sent).startswith(b"HTTP/1.1 413 ")
    assert shared.ask("GET", "/health").status == 200


def said(api: Api, sent: bytes, secs: float = 20) -> bytes:
    """Send bytes, and return what comes back until it is enough or the end."""
    with socket.create_connection(api.address, timeout=secs) as tcp:
        tcp.sendall(sent)
        answer = b""
        try:
            while b"\r\n\r\n" not in answer and (part := tcp.recv(65536)):
                answer += part
        except ConnectionResetError:
            pass
        return answer


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"GET /%00%ff/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"POST /health HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET /" + b"a" * 70_000, 431),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000, 431),
    ],
)
def test_what_is_no_request_is_answered_in_json(shared: Api, sent: bytes, status: int) -> None:
    answer = said(shared, sent)
    if answer or status != 431:  # a reset may overtake that one
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        assert b"application/json" in answer


def test_a_foreign_page_cannot_write(shared: Api) -> None:
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": f"http://127.0.0.1:{shared.address[1]}"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-origin"},
    ):
        for method, path in (("POST", REGISTER), ("DELETE", "/api/v1/backends/a")):
            assert shared.ask(method, path, GOOD, **headers).status == 403
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert shared.ask("POST", REGISTER, GOOD, Content_Type=kind).status == 415
    preflight = shared.ask("OPTIONS", REGISTER, Origin="http://evil.example")
    assert preflight.status == 405
    assert not any(name.startswith("access-control") for name in preflight.headers)
    assert shared.listed() == {}


def test_a_foreign_page_cannot_read(shared: Api) -> None:
    """Its own name may point to the proxy; then its browser sends that name."""
    for path in ("/", "/openapi.json", "/api/v1/backends", "/api/v1/explain?client=192.0.2.1"):
        answer = shared.ask("GET", path, Host=f"evil.example:{shared.address[1]}")
        assert (answer.status, answer.said["field"]) == (403, "Host")
        for host in ("127.0.0.1", "[::1]:80", "localhost", "edgeproxy:8081", "pop.internal"):
            assert shared.ask("GET", path, Host=host).status == 200
    assert shared.ask("GET", "/health", Host="pop.example.com").status == 200


def test_a_query_parameter_that_is_there_twice_is_named(shared: Api) -> None:
    for name in ("client", "app"):
        query = f"client=192.0.2.1&app=a&{name}=192.0.2.2"
        answer = shared.ask("GET", f"/api/v1/explain?{query}")
        assert (answer.status, answer.said["field"]) == (400, name)


def test_a_token_is_demanded_for_all_but_two(pop: Pop) -> None:
    api = serve(pop, EDGEPROXY_API_TOKEN=TOKEN, EDGEPROXY_LOG_LEVEL="debug")
    for path in ("/", "/openapi.json", "/api/v1/backends", "/api/v1/sessions", "/nothing"):
        answer = api.ask("GET", path)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert api.ask("POST", REGISTER, GOOD).status == 401
    assert api.ask("GET", "/health").status == 200
    assert api.ask("GET", "/ready").status == 503
    for wrong in (f"Bearer {TOKEN}x", "Bearer ", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN[:-1]}"):
        assert api.ask("GET", "/api/v1/backends", Authorization=wrong).status == 401
    right = Api(pop, Authorization=f"Bearer {TOKEN}")
    assert right.ask("POST", REGISTER, GOOD, Origin="http://x").status == 201
    assert right.ask("GET", "/api/v1/backends", Authorization=f"bearer {TOKEN}").status == 200
    pop.proxy.stop()
    assert TOKEN not in pop.proxy.told()


def test_a_token_may_stand_in_a_file_and_is_never_shown(pop: Pop) -> None:
    file = pop.folder / "token"
    file.write_text(f"{TOKEN}\n")
    api = serve(pop, EDGEPROXY_API_TOKEN_FILE=str(file))
    assert api.ask("GET", "/", Authorization=f"Bearer {TOKEN}").status == 200
    assert api.ask("GET", "/").status == 401
    for words in (("show",), ("show", "--json"), ("show", "--toml"), ("check",)):
        shown = run_edgeproxy("config", *words, folder=pop.folder, EDGEPROXY_API_TOKEN=TOKEN)
        assert shown.returncode == 0
        assert TOKEN not in shown.stdout + shown.stderr
    bad = run_edgeproxy("config", "check", folder=pop.folder, EDGEPROXY_API_TOKEN="two words")
    assert bad.returncode == 2
    assert "two words" not in bad.stderr
    both = {"EDGEPROXY_API_TOKEN": TOKEN, "EDGEPROXY_API_TOKEN_FILE": str(file)}
    for command in (("serve",), ("config", "check")):
        ran = run_edgeproxy(*command, folder=pop.folder, EDGEPROXY_API_ENABLED="true", **both)
        assert (ran.returncode, TOKEN in ran.stderr) == (2, False)
        assert "both set" in ran.stderr
    file.write_text("")
    ran = run_edgeproxy(
        "serve",
        folder=pop.folder,
        EDGEPROXY_API_ENABLED="true",
        EDGEPROXY_API_TOKEN_FILE=str(file),
    )
    assert ran.returncode == 2
    assert "holds no token" in ran.stderr


def test_another_token_in_the_file_is_demanded_without_a_restart(pop: Pop) -> None:
    file = pop.folder / "token"
    file.write_text(TOKEN)
    api = serve(pop, EDGEPROXY_API_TOKEN_FILE=str(file))
    file.write_text("")
    pop.proxy.send(signal.SIGHUP)
    pop.proxy.wait_for("api_token_bad")
    assert api.ask("GET", "/", Authorization=f"Bearer {TOKEN}").status == 200
    file.write_text("n3w-t0ken")
    pop.proxy.send(signal.SIGHUP)
    pop.proxy.wait_for("api_token_changed")
    assert api.ask("GET", "/", Authorization=f"Bearer {TOKEN}").status == 401
    assert api.ask("GET", "/", Authorization="Bearer n3w-t0ken").status == 200
    assert "n3w-t0ken" not in pop.proxy.told()


def test_only_listed_networks_may_call(pop: Pop) -> None:
    api = serve(pop, EDGEPROXY_API_ALLOW="127.0.0.2/32,10.0.0.0/8")
    for path in ("/health", "/", "/api/v1/backends"):
        assert api.ask("GET", path).status == 403
    assert Api(pop, "127.0.0.2").ask("GET", "/health").status == 200


def test_a_backend_may_speak_only_for_its_own_address(pop: Pop) -> None:
    api = serve(pop, EDGEPROXY_API_OWN_ADDRESS_ONLY="true")
    backend = running(pop, "a")
    own, other = Api(pop, "127.0.0.1"), Api(pop, "127.0.0.9")
    refused = other.register(backend)
    assert (refused.status, refused.said["field"]) == (403, "ip")
    assert own.register(backend).status == 201
    assert other.register(backend, ip="127.0.0.9").said["field"] == "id"
    assert other.beat("a") == 403
    assert other.ask("DELETE", "/api/v1/backends/a").status == 403
    one = "/api/v1/backends/a"
    for action in ("enable", "disable", "drain", "undrain"):
        assert other.ask("POST", f"{one}/{action}").said["field"] == "id"
    assert other.ask("PUT", f"{one}/weight", {"weight": 0}).status == 403
    limits = {"soft_limit": 0, "hard_limit": 1}
    assert other.ask("PUT", f"{one}/limits", limits).status == 403
    assert own.ask("PUT", f"{one}/weight", {"weight": 7}).status == 200
    assert own.beat("a") == 200
    assert (api.listed()["a"]["ip"], api.listed()["a"]["weight"]) == ("127.0.0.1", 7)


@pytest.mark.parametrize(
    "edit",
    ["UPDATE backends SET region = 'no region'", "UPDATE backends SET deleted = 1", "SELECT 1"],
)
def test_an_address_is_what_is_stored_and_not_what_is_routed_to(pop: Pop, edit: str) -> None:
    serve(pop, EDGEPROXY_API_OWN_ADDRESS_ONLY="true")
    own, other = Api(pop, "127.0.0.1"), Api(pop, "127.0.0.9")
    own.register(running(pop, "a"))
    execute(pop.database, edit)
    own.register(running(pop, "b"))  # so that the edit has been read
    execute(pop.database, "INSERT INTO backends VALUES ('c','a','sa','127.0.0.1',1,1,1,1,1,0)")
    for backend_id in "ac":
        answer = other.register(running(pop, backend_id), ip="127.0.0.9")
        assert (answer.status, answer.said["field"]) == (403, "id")
        assert other.ask("DELETE", f"/api/v1/backends/{backend_id}").status == 403
    assert own.ask("DELETE", "/api/v1/backends/a").status == 200


def test_only_so_many_may_register(pop: Pop) -> None:
    api = serve(pop, EDGEPROXY_API_MAX_BACKENDS="2")
    backend = running(pop, "a")
    assert [api.register(backend, id=each).status for each in "abcab"] == [201, 201, 503, 200, 200]
    assert api.register(backend, id="c").headers["retry-after"]
    api.ask("DELETE", "/api/v1/backends/a")
    assert api.register(backend, id="c").status == 201


def connect(api: Api, count: int, source: str = "127.0.0.1") -> list[socket.socket]:
    return [
        socket.create_connection(api.address, timeout=5, source_address=(source, 0))
        for _ in range(count)
    ]


def status(api: Api) -> int:
    """Return how an API answers, 0 if it does not."""
    try:
        return api.ask("GET", "/health").status
    except ConnectionError:
        return 0


def close(connections: list[socket.socket]) -> None:
    for each in connections:
        each.close()


def count_open(connections: list[socket.socket]) -> int:
    """Return how many of these were not closed by the other side."""
    closed, _, _ = select.select(connections, [], [], 0)
    return len(connections) - len(closed)


def test_callers_that_are_not_allowed_keep_no_others_out(pop: Pop) -> None:
    api = serve(pop, EDGEPROXY_API_ALLOW="127.0.0.1/32")
    strangers = connect(api, 300, "127.0.0.9")
    wait_until(lambda: count_open(strangers) == 64, "further ones are closed")
    assert api.ask("GET", "/health").status == 200
    close(strangers)
    wait_until(lambda: status(Api(pop, "127.0.0.9")) == 403, "an answer")


def test_callers_leave_descriptors_to_others(pop: Pop) -> None:
    api = serve_with(pop, 400)
    api.register(running(pop, "a"))
    callers = connect(api, 300, "127.0.0.2")
    wait_until(lambda: count_open(callers) == 50, "one caller has half of what callers have")
    callers += connect(api, 300, "127.0.0.3")
    wait_until(lambda: count_open(callers) == 100, "all callers have a quarter")
    assert {pop.reached() for _ in range(20)} == {"a"}
    close(callers)
    wait_until(lambda: status(api) == 200, "an answer")
    assert api.beat("a") == 200


def test_hostile_crowds_leave_the_proxy_serving(pop: Pop) -> None:
    api = serve(pop)
    api.register(running(pop, "a"))

    async def one(number: int) -> None:
        _, writer = await asyncio.open_connection(*api.address)
        writer.write(b"POST /api/v1/register HTTP/1.1\r\nContent-Length: 9\r\n\r\n"[: number + 1])
        await asyncio.sleep(0.3)
        writer.close()

    async def everybody() -> None:
        await asyncio.gather(*map(one, range(300)))

    asyncio.run(everybody())
    assert api.ask("GET", "/health").status == 200
    assert pop.reached() == "a"
