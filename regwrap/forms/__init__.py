"""The same images in other shapes: skopeo's dir: trees, OCI layouts, a registry image with a storage inside.

Digests and bytes stay. No registry is asked here.
"""
