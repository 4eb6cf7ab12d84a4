"""Decides whether a backend is up, from the results of its probes.

    up      unhealthy_threshold failures in a row     down
    down    healthy_threshold successes in a row      up

A backend that has not been probed yet is up. Results belong to this POP. They never change the
`healthy` column, which is the operator's intent.

After it comes up again, a backend may get its full share of clients only gradually
(`core/backends/slow_start`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

KINDS = ("tcp", "http", "grpc", "exec")
COMMAND_PREFIX = "EDGEPROXY_CHECK_"
"""How variables begin that are for the commands of exec probes, and no settings."""


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """How backends are probed.

    Attributes:
        enabled: Whether backends are probed at all.
        interval_secs: From one probe of a backend to the next.
        timeout_secs: How long one probe may take.
        kind: One of `KINDS`.
        path: HTTP: the path to request.
        status: HTTP: the expected status.
        host: HTTP: the Host header; "" for the name in the backend's certificate, else its
            address.
        service: gRPC: the service to check; "" for the server as a whole.
        command: exec: the command to run.
    """

    enabled: bool = False
    interval_secs: float = 5.0
    timeout_secs: float = 2.0
    kind: str = "tcp"
    path: str = "/health"
    status: int = 200
    host: str = ""
    service: str = ""
    command: str = ""

    def over(self, kind: str | None, path: str | None) -> ProbeSettings:
        """Return these settings with another kind and path, where they are given."""
        return replace(self, kind=kind or self.kind, path=path or self.path)


@dataclass(frozen=True, slots=True)
class Opening:
    """What a connection to a backend begins with, before any data.

    Attributes:
        header: The PROXY header of a connection without a client; b"": none.
        tls_name: The name in the backend's certificate; "": no TLS.
        ca_pem: The authorities that sign it; b"": the system's.
        alpn: The protocols that clients may agree on here; offered by TCP probes.
    """

    header: bytes = b""
    tls_name: str = ""
    ca_pem: bytes = b""
    alpn: tuple[str, ...] = ()


PLAIN = Opening()


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """How probe results become a verdict.

    Attributes:
        healthy_threshold: Successes in a row that bring a backend up.
        unhealthy_threshold: Failures in a row that take it down.
        slow_start_secs: Time from coming up to its full share of clients; 0: at once.
        panic: If all backends of an app are down, try all of them.
    """

    healthy_threshold: int = 2
    unhealthy_threshold: int = 3
    slow_start_secs: float = 0.0
    panic: bool = True


@dataclass(slots=True)
class Verdict:
    """What the probes of one backend say.

    Attributes:
        up: Whether the backend may have clients.
        streak: Results in a row that contradict `up`.
        since: When `up` last changed, or when the first result came (monotonic seconds).
        last: The fault of the last probe; "" if it succeeded or there was none.
    """

    up: bool = True
    streak: int = 0
    since: float = 0.0
    last: str = ""

    def hear(self, settings: HealthSettings, fault: str, now: float) -> bool:
        """Count a result: "" for a success, else the fault. Return whether `up` changed."""
        self.last = fault
        if not self.since:
            self.since = now
        if self.up is not bool(fault):
            self.streak = 0
            return False
        self.streak += 1
        enough = settings.unhealthy_threshold if self.up else settings.healthy_threshold
        if self.streak < enough:
            return False
        self.up = not self.up
        self.streak = 0
        self.since = now
        return True
