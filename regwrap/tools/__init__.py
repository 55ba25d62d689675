"""One module per external program; only here are flags and error texts known. Nothing here knows the storage layout."""
