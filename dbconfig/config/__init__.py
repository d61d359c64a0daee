"""From YAML files to settings, without SQLAlchemy."""
