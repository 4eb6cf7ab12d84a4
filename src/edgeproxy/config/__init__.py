"""Settings: one table of them, read from the environment and a file into the parts' dataclasses."""
