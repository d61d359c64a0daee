"""One module for each command; each has `run`, which returns the exit code."""
