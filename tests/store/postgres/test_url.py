"""A URL shows no password, however it is spelled."""

from __future__ import annotations

import pytest

from edgeproxy.store.postgres.url import Host, PostgresSettings, PostgresUrl, postgres_url
from edgeproxy.values import BadValueError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://u:secret@h/db", "postgres://u:***@h/db"),
        ("postgresql://u:secret@h:5433,k/db", "postgresql://u:***@h:5433,k/db"),
        ("postgres://h/db", "postgres://h/db"),
        ("postgres://u@h/db", "postgres://u@h/db"),
        ("postgres://u:s%40cret@h/db", "postgres://u:***@h/db"),
        ("postgres:///db?host=/run&password=secret&user=u", None),
        ("postgres://u:secret@[fd00::1]:5432/db", "postgres://u:***@[fd00::1]:5432/db"),
        ("postgres:///db?sslpassword=secret", "postgres:///db?sslpassword=***"),
    ],
)
def test_a_password_is_never_shown(text: str, shown: str | None) -> None:
    url = postgres_url(text)
    assert url.reveal() == text
    for seen in (str(url), repr(url), f"{url}", str(PostgresSettings(url=url))):
        assert "secret" not in seen
        assert "s%40cret" not in seen
    if shown is not None:
        assert str(url) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mysql://u:secret@h/db",
        "u:secret@h/db",
        "postgres://u:secret@h:99999/db",
        "postgres://u:secret@h:x/db",
        "postgres://u:secret@h,,k/db",
        "postgres://u:sec@ret@h/db",
        "postgres://u:sec#ret@h/db",
        "postgres://u:secret@h\n/db",
        "postgres://u:***@h/db",
        "postgres://u:secret@[h/db",
    ],
)
def test_what_is_no_url_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(BadValueError, match="allowed is a URL such as postgres://") as error:
        postgres_url(text)
    assert "secret" not in str(error.value)
    assert error.value.__cause__ is None


def test_parameters_of_libpq_alone_are_not_asked_of_the_server() -> None:
    text = "postgres://u:secret@h/db?connect_timeout=3&sslmode=require&channel_binding=prefer"
    url = PostgresUrl(text)
    assert url.reveal() == "postgres://u:secret@h/db?sslmode=require"
    assert str(url) == text.replace("secret", "***")
    for each in ("keepalives=1&keepalives_idle=30", "gssencmode=disable", "client_encoding=auto"):
        assert PostgresUrl(f"postgres://h/db?{each}").reveal() == "postgres://h/db"


@pytest.mark.parametrize(
    "each",
    [
        "channel_binding=require",
        "gssencmode=require",
        "hostaddr=10.0.0.1",
        "require_auth=none",
        "pass%77ord=secret",
    ],
)
def test_a_parameter_that_would_not_be_kept_is_refused(each: str) -> None:
    with pytest.raises(BadValueError, match=r"parameter|take it out") as error:
        postgres_url(f"postgres://h/db?sslmode=require&{each}")
    assert "secret" not in str(error.value)


def test_hosts_are_told_apart() -> None:
    url = PostgresUrl("postgres://u:p@10.0.0.1,db.example:5433,[fd00::1]:5434,%2Frun%2Fpg/db")
    assert url.hosts == (
        Host("10.0.0.1", 5432),
        Host("db.example", 5433),
        Host("fd00::1", 5434),
        Host("/run/pg", 5432),
    )
    assert PostgresUrl("postgres:///db?host=/run").hosts == ()


def test_messages_of_others_lose_the_password() -> None:
    url = PostgresUrl("postgres://u:s%40cret@h/db?password=other")
    assert url.without_secrets("a s%40cret b s@cret c other d") == "a *** b *** c *** d"
