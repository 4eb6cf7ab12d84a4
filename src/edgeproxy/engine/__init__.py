"""Byte rate: sockets in, sockets out, and the gate through which decisions are asked."""
