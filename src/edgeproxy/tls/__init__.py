"""Certificates and authorities: read from files, reloaded when they change, used by engines."""
