"""Images with all their bytes, wherever they lie: a bundle, a storage, skopeo's dir: trees, an OCI layout."""
