"""The listeners of a proxy: as configured (`spec`), their sockets (`opening`), and as they run."""
