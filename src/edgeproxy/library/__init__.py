"""The proxy's parts for programs of one's own, with clocks and loops already in them.

Import the names from `edgeproxy`; each is loaded when it is first asked for.
"""
