"""Finding out who is up: pings, helpers, round trips, and how far to trust oneself meanwhile."""
