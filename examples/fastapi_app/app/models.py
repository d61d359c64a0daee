"""The tables, and what goes in and out of the API."""

from sqlmodel import Field, SQLModel

from dbconfig.integrations.alembic import NAMING_CONVENTION

SQLModel.metadata.naming_convention = NAMING_CONVENTION


class UserIn(SQLModel):
    email: str = Field(max_length=200, regex=r"^[^@\s]+@[^@\s]+$")
    password: str = Field(min_length=8, max_length=200)


class UserOut(SQLModel):
    id: int
    email: str


class User(SQLModel, table=True):
    __tablename__ = "app_user"

    id: int | None = Field(default=None, primary_key=True)
    email: str = Field(max_length=200, unique=True)
    password_hash: str = Field(max_length=200)


class Token(SQLModel, table=True):
    """Who may come back without a password; the token itself is only with its owner."""

    __tablename__ = "app_token"

    digest: str = Field(max_length=64, primary_key=True)
    user_id: int = Field(foreign_key="app_user.id", ondelete="CASCADE", index=True)


class ItemIn(SQLModel):
    title: str = Field(min_length=1, max_length=200)
    description: str | None = Field(default=None, max_length=1000)


class Item(ItemIn, table=True):
    id: int | None = Field(default=None, primary_key=True)
    owner_id: int = Field(foreign_key="app_user.id", ondelete="CASCADE", index=True)


class Items(SQLModel):
    data: list[Item]
    count: int
