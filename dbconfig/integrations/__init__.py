"""Bridges to other packages: one module for each, never imported by the core, each importable alone."""
