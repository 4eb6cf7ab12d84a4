"""Settings: one table, read from the environment and a file into the dataclasses of the parts."""
