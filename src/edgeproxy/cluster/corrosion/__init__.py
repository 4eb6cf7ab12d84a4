"""Corrosion as the engine: a program of its own, which this room starts, watches, and talks to.

It keeps its state in an SQLite file, which is read directly, and takes edits by HTTP on loopback.
"""
