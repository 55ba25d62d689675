"""Flags, environment and file become one Config; the first file; what skopeo's own files mean.

Only the command line and doctor read it: a step is given values, never the configuration.
"""
