"""Lists of other tools: skopeo sync, image-syncer, regsync, hauler, Carvel's ImagesLock. One file a format.

What a list says and regwrap does not do is a note where the images stay the same, and an error where they would not.
"""
