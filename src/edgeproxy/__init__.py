"""edgeProxy: a geo-aware TCP load balancer for edge points of presence.

Other programs can use its parts; see docs/library.md. Each part is loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeproxy.version import VERSION

if TYPE_CHECKING:
    from edgeproxy.library.circuit_breaker import CircuitBreaker
    from edgeproxy.library.config_watcher import ConfigChange, ConfigWatcher
    from edgeproxy.library.connection_pool import ConnectionPool
    from edgeproxy.library.health_checker import HealthChecker
    from edgeproxy.library.prometheus_metrics import PrometheusMetrics
    from edgeproxy.library.rate_limiter import RateLimiter
    from edgeproxy.library.registration import Registration
    from edgeproxy.library.shutdown_controller import ShutdownController

__all__ = [
    "CircuitBreaker",
    "ConfigChange",
    "ConfigWatcher",
    "ConnectionPool",
    "HealthChecker",
    "PrometheusMetrics",
    "RateLimiter",
    "Registration",
    "ShutdownController",
    "__version__",
]

__version__ = VERSION

_PARTS = {
    "CircuitBreaker": "circuit_breaker",
    "ConfigChange": "config_watcher",
    "ConfigWatcher": "config_watcher",
    "ConnectionPool": "connection_pool",
    "HealthChecker": "health_checker",
    "PrometheusMetrics": "prometheus_metrics",
    "RateLimiter": "rate_limiter",
    "Registration": "registration",
    "ShutdownController": "shutdown_controller",
}


def __getattr__(name: str) -> Any:
    if name not in _PARTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"edgeproxy.library.{_PARTS[name]}"), name)
