"""A mixed storm against a real proxy: `python -m bench.storm`; `__main__.py` tells what it does.

Imports go one way, `__main__ → storm → crowd → manner → client` and `storm → trouble | flapping →
table → backend`. Beneath are `proxy` and `report`, and then `protocol` and `fault`.
"""
