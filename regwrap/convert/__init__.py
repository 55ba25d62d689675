"""From a bundle or a storage to skopeo's directories and OCI layouts, and back. No byte is written anew."""
