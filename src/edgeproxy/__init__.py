"""edgeProxy: a geo-aware TCP load balancer for edge points of presence."""

from edgeproxy.version import VERSION

__all__ = ["__version__"]

__version__ = VERSION
