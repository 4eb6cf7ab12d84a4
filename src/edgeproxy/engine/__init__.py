"""Byte rate: sockets in, sockets out, and the gate that is asked for decisions."""
