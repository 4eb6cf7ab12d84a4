"""The API of Corrosion: a server that answers as Corrosion did when it was recorded."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.cluster.corrosion.link import Link, NoAnswerError
from edgeproxy.cluster.engine import EngineError
from tests.cluster.corrosion.exchanges import REQUESTS, record, recorded, without_what_varies
from tests.cluster.corrosion.pops import needs_corrosion

SECRET = "secret"


class Api(ThreadingHTTPServer):
    """Answers a known request as it was answered once."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.exchanges: dict[str, dict[str, Any]] = recorded()["transactions"]
        self.connections = 0
        self.is_silent = False


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Api

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        statements = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.is_silent:
            self.close_connection = True
            return
        name = next(
            name for name, each in self.server.exchanges.items() if each["statements"] == statements
        )
        is_known = self.headers["Authorization"] == f"Bearer {SECRET}"
        found = self.server.exchanges[name if is_known else "a wrong secret"]
        body = found["answer"].encode()
        self.send_response(found["status"])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as api:
        thread = threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield api
        api.shutdown()
        thread.join()


@pytest.fixture
def link(api: Api) -> Iterator[Link]:
    link = Link(api.server_address[1], SECRET, answer_secs=5)
    yield link
    link.close()


@pytest.mark.parametrize("name", ["inserts", "updates", "deletes", "only a token"])
def test_what_corrosion_takes_is_done(link: Link, name: str) -> None:
    link.execute(REQUESTS[name])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("late", "another agent has committed"),
        ("a missing table", "refused an edit: .*no such table: music.* \\(500\\)"),
        ("nothing", "at least 1 statement is required \\(400\\)"),
    ],
)
def test_what_corrosion_refuses_is_not_done(link: Link, name: str, reason: str) -> None:
    with pytest.raises(EngineError, match=reason) as caught:
        link.execute(REQUESTS[name])
    assert not isinstance(caught.value, NoAnswerError)


def test_a_wrong_secret_is_refused(api: Api) -> None:
    link = Link(api.server_address[1], "wrong")
    with pytest.raises(EngineError, match="401"):
        link.execute(REQUESTS["inserts"])
    link.close()


def test_the_connection_is_kept(api: Api, link: Link) -> None:
    for name in ("inserts", "late", "updates"):
        try:
            link.execute(REQUESTS[name])
        except EngineError:
            assert name == "late"
    assert api.connections == 1


def test_without_an_answer_nobody_knows(api: Api, link: Link) -> None:
    api.is_silent = True
    with pytest.raises(NoAnswerError, match="does not answer"):
        link.execute(REQUESTS["inserts"])
    api.is_silent = False
    link.execute(REQUESTS["inserts"])


def test_where_nobody_listens_nothing_is_done() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        link = Link(taken.getsockname()[1], SECRET)
        with pytest.raises(EngineError, match="cannot be reached: Connection refused") as caught:
            link.execute(REQUESTS["inserts"])
    assert not isinstance(caught.value, NoAnswerError)


@needs_corrosion
def test_corrosion_answers_as_it_was_recorded(tmp_path: Path) -> None:
    now, then = record(tmp_path)["transactions"], recorded()["transactions"]
    assert now.keys() == then.keys()
    for name, exchange in now.items():
        assert exchange["statements"] == then[name]["statements"], name
        assert exchange["status"] == then[name]["status"], name
        assert parsed(exchange["answer"]) == parsed(then[name]["answer"]), name


def parsed(answer: str) -> object:
    return without_what_varies(json.loads(answer)) if answer.startswith("{") else answer
