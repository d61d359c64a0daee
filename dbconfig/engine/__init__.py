"""From settings to an engine, without YAML."""
