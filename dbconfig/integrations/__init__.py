"""Integrations with other packages: one module each, never imported by the core, each importable alone."""
