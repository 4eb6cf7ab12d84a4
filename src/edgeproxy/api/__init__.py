"""The HTTP API: backends register and leave, operators read the state of a POP and change it.

A proxy without the API imports nothing of this folder but `settings`.
"""
