"""The bridge between the routing database, which anybody may write, and an engine.

`bridge` is the loop, `routing_file` compares and writes the database, `shadow` remembers what was
last seen there.
"""
