"""A ledger for clusters that run somewhere: `python -m tests.clusters`."""
