"""Where backends come from: the routing database and the feed that turns rows into a table."""
