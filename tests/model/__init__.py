"""Searches everything that can happen between a few replicas, with the real code.

    python -m tests.model --secs 60
    python -m tests.model --secs 60 --without "new origin"

Nodes write, delete and update a row; clocks jump; transactions that were pushed are lost, repeated
and reordered for ever; answers to pulls come late, part by part or never; tombstones are dropped;
nodes start anew. `--without` takes one rule of the protocol away: then the search must find why it
is there. The rules are taken away in `broken.py`; the code under test knows nothing of that.
"""
