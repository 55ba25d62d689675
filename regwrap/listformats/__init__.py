"""Lists that other tools read: skopeo sync, image-syncer, regsync, hauler, Carvel's ImagesLock.

What a list says and regwrap does not do is a note where the images stay the same, and an error where they would not.
"""
