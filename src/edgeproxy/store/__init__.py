"""The routing database, and the feed that turns its rows into a routing table.

`choice` picks the kind of database; `sqlite` and `postgres` do not know each other, and share
`edits` and `snapshot`.
"""
