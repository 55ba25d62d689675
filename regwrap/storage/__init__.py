"""A registry's storage directory (distribution's v2 layout): read, committed, locked, swept.

Nothing here starts a program or speaks to a network.
"""
