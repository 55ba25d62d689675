"""Say what a bundle holds and where its bytes lie, then write it."""
