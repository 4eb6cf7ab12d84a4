"""The routing database in an SQLite file: reading, edits, registrations, server names."""
