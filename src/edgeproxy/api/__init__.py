"""The API by which backends register and leave, and by which a POP is asked and told over HTTP.

Only `settings` is imported before it is enabled.
"""
