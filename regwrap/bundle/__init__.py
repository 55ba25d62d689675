"""The release bundle: an uncompressed tar of a registry's storage, bundle.json in front (docs/bundle-format.md)."""
