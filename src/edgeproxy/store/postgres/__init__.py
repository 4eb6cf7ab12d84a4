"""The routing database on a PostgreSQL server: reading, edits, registrations, server names.

`link` keeps the connections and listens for changes; `driver_loop` keeps asyncpg on a loop of its
own.
"""
