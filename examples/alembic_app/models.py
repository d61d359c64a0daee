"""The tables of a library; each of their changes is a revision in migrations/."""

from sqlmodel import Field, SQLModel

from dbconfig.integrations.alembic import NAMING_CONVENTION

# Before the models: a constraint without a name could not be dropped everywhere.
SQLModel.metadata.naming_convention = NAMING_CONVENTION  # type: ignore[assignment]


class Author(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=100, unique=True)


class Book(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    title: str = Field(max_length=200, index=True)
    author_id: int = Field(foreign_key="author.id")
    pages: int = Field(default=0, sa_column_kwargs={"server_default": "0"})  # since the second revision
