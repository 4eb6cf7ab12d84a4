"""Certificates and authorities: read from files, followed, and handed to engines as values."""
