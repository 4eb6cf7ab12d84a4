"""The log: one line per event, for people or for programs, and never in the way of the bytes."""

from __future__ import annotations

import signal

import pytest

from tests.store.editing import execute
from tests.system.backends import Backend
from tests.system.pop import Pop, row
from tests.system.proxy import EDGEPROXY, SERVE, run_edgeproxy
from tests.waiting import PAUSE, wait_until

pytestmark = pytest.mark.system

BAD_ROWS = 1_000
"""All of them are named in the log, and no more would be."""
ROUNDS = 15
"""More lines than the proxy keeps for a reader who does not read."""


def reach_a_new_backend(pop: Pop, name: str = "new") -> None:
    """Replace the nodes by another one and wait until clients reach it."""
    new = pop.keep(Backend(name))
    new.start()
    execute(pop.database, "DELETE FROM backends WHERE port < 70000;" + row(new))
    wait_until(lambda: pop.reached() == name, "the edit")


def make_bad_rows(pop: Pop) -> None:
    """Have bad rows come into force, round after round."""
    for number in range(ROUNDS):
        execute(
            pop.database,
            "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers "
            f"WHERE n < {BAD_ROWS}) INSERT INTO backends SELECT 'bad-{number}-' || n, 'myapp', "
            "'sa', '127.0.0.1', 70000, 1, 1, 1, 1, 0 FROM numbers",
        )
        reach_a_new_backend(pop, f"new-{number}")


def test_json_puts_one_object_on_each_line_with_the_same_content(pop: Pop) -> None:
    pop.backend("good")
    pop.dead_backend("dead")
    proxy = pop.serve(EDGEPROXY_LOG_FORMAT="json", EDGEPROXY_NO_SUCH_THING="1")
    assert pop.reached() == pop.reached() == "good"
    proxy.edit(
        "INSERT INTO backends VALUES ('b\"ad' || char(10), 'myapp', 'sa', '::', 9, 1, 1, 1, 1, 0);"
        "UPDATE backends SET healthy = 0"
    )
    assert pop.reached() == ""
    proxy.stop()

    assert not proxy.foreign
    names = [line["event"] for line in proxy.events]
    for name in ("configuration", "geo", "table_published", "ready", "dial_failed", "row_skipped"):
        assert name in names
    assert names[-3:] == ["signal", "draining", "stopped"]
    (ready,) = proxy.seen("ready")
    assert ready["backends"] == 2
    assert proxy.seen("row_skipped")[0]["id"] == 'b"ad\n'


def test_the_address_in_a_json_ready_line_is_text_as_in_the_settings(pop: Pop) -> None:
    proxy = pop.begin_to_serve(EDGEPROXY_LOG_FORMAT="json")

    listen = proxy.wait_for("ready")["listen"]

    assert isinstance(listen, str), listen
    assert listen.startswith("127.0.0.1:")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_log_without_a_reader_stops_nothing_and_later_counts_what_was_lost(
    pop: Pop, log_format: str
) -> None:
    pop.backend("old")
    proxy = pop.serve(EDGEPROXY_LOG_FORMAT=log_format)
    proxy.stop_reading()

    make_bad_rows(pop)
    reach_a_new_backend(pop)

    proxy.read_on()
    wait_until(lambda: proxy.seen("log_lines_dropped") or proxy.foreign, "word of what was lost")
    proxy.stop()
    assert not proxy.foreign, proxy.foreign
    told = len(proxy.seen("row_skipped"))
    dropped = sum(int(line["count"]) for line in proxy.seen("log_lines_dropped"))
    assert told > 1000
    assert told + dropped >= BAD_ROWS * ROUNDS


def test_a_log_without_a_reader_does_not_hold_up_the_end(pop: Pop) -> None:
    proxy = pop.serve()
    proxy.stop_reading()
    make_bad_rows(pop)
    reach_a_new_backend(pop)

    proxy.send(signal.SIGTERM)

    assert proxy.wait_for_exit(secs=6) == 0


def test_a_log_whose_reader_has_gone_stops_nothing(pop: Pop) -> None:
    pop.backend("old")
    proxy = pop.serve()
    proxy.hang_up()

    for weight in (2, 3):
        execute(pop.database, f"UPDATE backends SET weight = {weight}")
        PAUSE.wait(0.3)
    reach_a_new_backend(pop)

    proxy.send(signal.SIGTERM)
    assert proxy.wait_for_exit() == 0
    assert not proxy.seen("stopped"), "nobody was there to read it"


@pytest.mark.parametrize("access_log", ["off", "-"])
@pytest.mark.parametrize("redirection", [">&-", "<&- >&-", ">/dev/full"])
def test_a_clean_end_is_a_clean_end_without_a_standard_output(
    pop: Pop, redirection: str, access_log: str
) -> None:
    pop.backend("sa-1")
    command = ("sh", "-c", f'exec "$@" {redirection}', "sh", *SERVE)
    proxy = pop.serve_with(command, EDGEPROXY_ACCESS_LOG=access_log)
    assert pop.reached() == "sa-1"
    proxy.stop()


@pytest.mark.parametrize("words", ["--version", "config show", "db show", "route list"])
@pytest.mark.parametrize("redirection", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_command_without_a_standard_output_ends_as_it_does_with_one(
    pop: Pop, words: str, redirection: str
) -> None:
    pop.backend("sa-1")
    with_one = run_edgeproxy(*words.split(), folder=pop.folder)
    command = ("sh", "-c", f'exec "$@" {redirection}', "sh", *EDGEPROXY)
    without = run_edgeproxy(*words.split(), folder=pop.folder, command=command)
    assert without.returncode == with_one.returncode
    assert "Traceback" not in without.stderr


@pytest.mark.parametrize(
    ("variable", "text", "is_wanted"),
    [
        ("EDGEPROXY_LOG_LEVEL", "debug", True),
        ("EDGEPROXY_LOG_LEVEL", "info", False),
        ("DEBUG", "yes", True),
        ("DEBUG", "OFF", False),
    ],
)
def test_debug_asks_for_more(pop: Pop, variable: str, text: str, is_wanted: bool) -> None:
    proxy = pop.serve(**{variable: text})
    proxy.stop()
    assert any(line["level"] == "debug" for line in proxy.events) == is_wanted
