"""From YAML files to settings; no SQLAlchemy here."""
