"""Hostile bytes for everything that decodes what peers send."""
