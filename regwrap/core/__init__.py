"""The vocabulary: digests, references, manifests, closures, locations, errors; and what every room does alike: signals,
one thread pool, files that are written whole.

Nothing here opens a registry, knows the storage layout or starts a program, and nothing here imports another room.
"""
