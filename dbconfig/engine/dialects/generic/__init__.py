"""Database systems of which SQLAlchemy's dialect is all that is known."""
