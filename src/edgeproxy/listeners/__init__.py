"""The listeners of a proxy: as configured (`spec`), opened and followed (`listeners`)."""
