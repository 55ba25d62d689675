"""regwrap: an images.list becomes one install package for registries without internet."""

__version__ = "0.2.0"
