"""One connection to a PostgreSQL server; every fault becomes an error that says what to do.

The driver, asyncpg, is imported when the first connection is made. No message ever holds a
password.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeproxy import regular_file
from edgeproxy.errors import StoreError, reason_of
from edgeproxy.store.postgres.url import Host, PostgresSettings, PostgresUrl

if TYPE_CHECKING:
    from asyncpg import Connection

    PostgresConnection = Connection[Any]

NAME = "edgeproxy"
"""The name of our connections in pg_stat_activity."""

_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile")
"""Parameters of the URL that name files."""

LOCKED = "is locked by another program: nothing was changed, try again when it has finished"
UNREACHABLE = "cannot be reached"
NO_TABLE = (
    "has no table `backends`, or its user may not see it: run `edgeproxy db init` with a user "
    "who may create it"
)


class PostgresError(StoreError):
    """A fault of one PostgreSQL server.

    Attributes:
        is_lost: The connection broke or could not be made; another one may work.
    """

    def __init__(self, url: PostgresUrl, reason: str, *, is_lost: bool = False) -> None:
        super().__init__(f"{url} {reason}", reason)
        self.is_lost = is_lost


class ReadOnlyError(PostgresError):
    """The server takes no edits: it is a standby, or was made read-only."""


def url_of(settings: PostgresSettings) -> PostgresUrl:
    """Return the URL of the server; the configuration is known to have one."""
    assert settings.url is not None
    return settings.url


async def connect(settings: PostgresSettings, **_of_pool: object) -> PostgresConnection:
    """Return a connection to the first host that takes edits, else to the first that answers.

    Each host has the whole connect timeout. Session attributes that the URL asks for decide
    instead. Raises PostgresError.
    """
    url = url_of(settings)
    chooses = len(url.hosts) > 1 and "target_session_attrs" not in url.parameters
    spare: PostgresConnection | None = None
    faults: list[str] = []
    for host in url.hosts or (None,):
        try:
            connection = await _connect_to(host, settings)
            if not chooses:
                return connection
            if not await is_standby(connection, settings):
                if spare is not None:
                    spare.terminate()
                return connection
        except PostgresError as error:
            if len(url.hosts) < 2:
                raise
            faults.append(f"{host}: {error.reason}")
            continue
        if spare is None:
            spare = connection
        else:
            connection.terminate()
    if spare is not None:
        return spare
    raise PostgresError(url, "; ".join(faults), is_lost=True)


async def is_standby(connection: PostgresConnection, settings: PostgresSettings) -> bool:
    """Return whether the server is a standby. Raises PostgresError if it does not answer."""
    async with naming_faults(settings):
        query = "SELECT pg_catalog.pg_is_in_recovery()"
        return bool(await connection.fetchval(query, timeout=settings.connect_timeout_secs))


async def _connect_to(host: Host | None, settings: PostgresSettings) -> PostgresConnection:
    import asyncpg

    url = url_of(settings)
    chosen: dict[str, Any] = {} if host is None else {"host": [host.name], "port": [host.port]}
    if "application_name" not in url.parameters:
        chosen["server_settings"] = {"application_name": NAME}
    _check_files(url)
    async with naming_faults(settings, while_connecting=True):
        connection: PostgresConnection = await asyncpg.connect(
            url.reveal(),
            timeout=settings.connect_timeout_secs,
            command_timeout=settings.query_timeout_secs,
            statement_cache_size=0,  # a pooler in transaction mode may be in between
            **chosen,
        )
        return connection


def _check_files(url: PostgresUrl) -> None:
    """Raise PostgresError if the driver would wait for a file that the URL names, as for a FIFO."""
    for name in _FILES:
        path = Path(url.parameters.get(name, ""))
        try:
            if name in url.parameters and path.exists():
                regular_file.read(path, regular_file.MAX_PEM_BYTES)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise PostgresError(url, f"cannot be used: {name}={str(path)!r}: {reason}") from None


@asynccontextmanager
async def naming_faults(
    settings: PostgresSettings, *, while_connecting: bool = False
) -> AsyncIterator[None]:
    """Turn errors of the driver and of the network into PostgresError."""
    import asyncpg

    url = url_of(settings)
    try:
        yield
    except TimeoutError:
        if while_connecting:
            secs, variable = settings.connect_timeout_secs, "CONNECT_TIMEOUT_SECS"
            did = "did not answer"
        else:
            secs, variable = settings.query_timeout_secs, "QUERY_TIMEOUT_SECS"
            did = "did not finish a query"
        reason = f"{did} within {secs:g} s (EDGEPROXY_POSTGRES_{variable})"
        raise PostgresError(url, reason, is_lost=while_connecting) from None
    except asyncpg.QueryCanceledError as error:
        secs = settings.query_timeout_secs
        reason = (
            f"did not finish a query within {secs:g} s (EDGEPROXY_POSTGRES_QUERY_TIMEOUT_SECS)"
            if "statement timeout" in str(error)
            else f"cancelled a query: {error}"
        )
        raise PostgresError(url, reason) from None
    except asyncpg.LockNotAvailableError:
        raise PostgresError(url, LOCKED) from None
    except asyncpg.ReadOnlySQLTransactionError as error:
        reason = f"takes no edits ({error}): is it a standby? name the primary in the URL"
        raise ReadOnlyError(url, reason) from None
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        raise PostgresError(url, NO_TABLE) from None
    except (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        OSError,
        EOFError,
    ) as error:
        is_lost, reason = _reason(error, url)
        raise PostgresError(url, reason, is_lost=is_lost) from None
    except (UnicodeError, ValueError, OverflowError) as error:
        text = url.without_secrets(str(error))
        raise PostgresError(url, f"holds or was sent an unreadable value: {text}") from None


def _reason(error: Exception, url: PostgresUrl) -> tuple[bool, str]:
    """Return whether the connection is lost, and what is wrong."""
    import asyncpg

    text = url.without_secrets(reason_of(error))
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return False, f"refuses us ({text}): check user and password in EDGEPROXY_POSTGRES_URL"
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return False, f"has no such database ({text}): create it, or correct the URL"
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return False, f"does not allow it ({text}): grant its user what is missing"
    if isinstance(error, asyncpg.TooManyConnectionsError):
        return True, f"has no connection left ({text}): raise its max_connections"
    lost = (
        asyncpg.PostgresConnectionError,
        asyncpg.CannotConnectNowError,
        asyncpg.AdminShutdownError,
        asyncpg.CrashShutdownError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,  # a protocol error of the driver: a new connection cures it
        asyncpg.TargetServerAttributeNotMatched,
        OSError,
        EOFError,
    )
    if isinstance(error, lost):
        return True, f"{UNREACHABLE}: {text}"
    return False, f"cannot be used as it is: {text}"
