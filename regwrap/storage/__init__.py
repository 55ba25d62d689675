"""The storage directory of a registry (distribution's v2 layout) on disk. Nothing here starts a program."""
