"""edgeProxy: a geo-aware TCP load balancer for edge points of presence."""

from edgeproxy.version import VERSION as __version__

__all__ = ["__version__"]
