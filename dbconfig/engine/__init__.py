"""From settings to an engine; no YAML here."""
