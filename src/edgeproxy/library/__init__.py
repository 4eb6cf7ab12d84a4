"""The proxy's parts for other programs, with clocks and event loops already in them.

Import the names from `edgeproxy`; each is loaded when it is first asked for.
"""
