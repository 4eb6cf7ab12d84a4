"""Where a client is: its normalised address, then override files, the database, and the regions.

`locator` asks them in order and returns an `Origin`. Nothing here reads a file; `control/geoip`
hands over what it has read.
"""
