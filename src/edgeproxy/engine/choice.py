"""Picks the engine. `auto` is the native one where this installation has it."""

from __future__ import annotations

from collections.abc import Callable

from edgeproxy.engine.contract import Engine, EngineSettings, Gate
from edgeproxy.errors import UsageError
from edgeproxy.log import EventLog

log = EventLog("engine")

KINDS = ("auto", "native", "portable")

MakeEngine = Callable[[EngineSettings, Gate, Callable[[BaseException], object]], Engine]


def native_engine() -> MakeEngine | None:
    """Return the native engine, or None where it was not built."""
    try:
        from edgeproxy.engine.native.engine import NativeEngine
    except ModuleNotFoundError:
        return None
    except ImportError as error:  # built, but not for this Python or this system
        log.warning("native_engine_broken", error=error)
        return None
    return NativeEngine


def native_has_tls() -> bool:
    """Return whether the native engine, which is there, was built with OpenSSL."""
    from edgeproxy.engine.native.tls import tls_end as tls

    return bool(tls.HAS_TLS)


def best_kind() -> str:
    """Return the kind of engine that `auto` gives here."""
    return "native" if native_engine() else "portable"


def make_engine(
    settings: EngineSettings,
    gate: Gate,
    on_crash: Callable[[BaseException], object],
    *,
    with_tls: bool = False,
) -> Engine:
    """Return the engine that the settings ask for, not started yet. Raises UsageError.

    `with_tls`: TLS is needed, so `auto` passes over a native engine that was built without it.
    """
    make = None if settings.kind == "portable" else native_engine()
    if make is not None and with_tls and settings.kind == "auto" and not native_has_tls():
        log.info("native_engine_without_tls", hint="install libssl-dev and build the engine again")
        make = None
    if make is None:
        if settings.kind == "native":
            raise UsageError(
                "EDGEPROXY_ENGINE=native: this installation has no native engine; install it "
                "on a host with a C compiler to build one, or use `portable` or `auto`"
            )
        from edgeproxy.engine.portable.engine import PortableEngine

        make = PortableEngine
    return make(settings, gate, on_crash)
