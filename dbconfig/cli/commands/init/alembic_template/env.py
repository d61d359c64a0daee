"""The migrations' environment: the profile of ENVIRONMENT decides which database."""

import app.models  # noqa: F401  # the tables stand in the metadata once their module is imported
from sqlmodel import SQLModel

from dbconfig.integrations.alembic import run_migrations

run_migrations(SQLModel.metadata)
