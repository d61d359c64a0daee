"""SQLAlchemy's own suite for dialects, on a stock engine and on ours: `make compliance`."""
