"""The audited programs behind one runner, and the patience they are run with.

One module a program; only here are its flags and its error texts known. The storage layout, bundles and lists do not
enter.
"""
