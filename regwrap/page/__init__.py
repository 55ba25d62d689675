"""Pages to look at: a report of a run and a bundle, each one HTML file. No scripts, no network."""
