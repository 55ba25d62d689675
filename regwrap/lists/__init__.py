"""Which images: images.list, other tools' formats, images in manifests, locks, rules, shards, names.

Pure but for reading the files that a user names. No registry is asked here, and no storage is opened.
"""
