"""Sessions of one engine, and units of work that are retried."""
