"""The vocabulary: digests, references, manifests, closures, places, errors, interruption.

Pure values and rules that every room shares. Nothing here opens a registry, knows the storage layout or starts a
program, and nothing here imports another room.
"""
