"""The distribution API, both sides: asked (client, credentials, Harbor), and served read-only from a tar or a storage.

Lists, plans and storages that are written to do not enter.
"""
