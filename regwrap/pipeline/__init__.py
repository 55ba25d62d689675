"""The steps of a release put together: ends, locks, stages and programs. What is acquired here is released here."""
