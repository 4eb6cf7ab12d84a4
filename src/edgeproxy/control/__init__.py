"""Control rate: what changes in seconds, such as geo databases."""
