"""One module a command: open, lock, observe, decide, do, return a report value.

What is acquired here is released here. No typer, no text for people, no file of the configuration.
"""
