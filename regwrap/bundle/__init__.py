"""A release as one thing: an uncompressed tar of a registry's storage, bundle.json in front (docs/bundle-format.md).

Contents, selection, packing, reading, examining, merging. Registries and programs other than tar do not enter.
"""
