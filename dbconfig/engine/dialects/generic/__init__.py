"""Database systems supported only through SQLAlchemy's dialect."""
