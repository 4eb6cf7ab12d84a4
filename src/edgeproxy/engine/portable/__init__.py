"""The engine in pure Python: one thread, edge-triggered epoll, `splice` for bulk.

It runs everywhere and is the readable twin of `engine/native`; the conformance suite runs over
both.
"""
