"""The pull side of the distribution API, read-only, straight from a bundle's tar or a storage: nothing is copied."""
