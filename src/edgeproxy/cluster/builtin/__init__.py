"""The built-in engine: a replica, its state in a file, and how POPs find and watch each other.

`engine` puts the parts together. The decisions are in `core/cluster`, the sessions that carry
messages in `cluster/sessions`.
"""
