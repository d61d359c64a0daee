"""A statement on a table that is not there yet: the error says how tables are made, on every driver."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from dbconfig import Profile, Registry
from tests.support.servers import Server

SYNCHRONOUS = ("postgresql+psycopg2", "postgresql+psycopg", "mysql+pymysql", "sqlite")
ASYNCHRONOUS = ("postgresql+asyncpg", "postgresql+psycopg", "mysql+asyncmy", "mysql+aiomysql", "sqlite+aiosqlite")
STATEMENTS = ("SELECT * FROM hero", "DELETE FROM hero")


def registry_of(scheme: str, request: pytest.FixtureRequest) -> Registry:
    if scheme.startswith("sqlite"):
        return Registry.from_profile(
            Profile(name="case", url=f"{scheme}:///{request.getfixturevalue('tmp_path')}/a.db")
        )
    server = request.getfixturevalue("postgresql" if scheme.startswith("postgresql") else "mariadb")
    assert isinstance(server, Server)
    return Registry.from_profile(Profile(name="case", url=server.url(scheme)))


def marked(schemes: tuple[str, ...]) -> list[object]:
    return [pytest.param(each, marks=() if "sqlite" in each else pytest.mark.server) for each in schemes]


def assert_explained(error: DBAPIError) -> None:
    notes = "\n".join(error.__notes__)
    assert "dbconfig[missing-table]" in notes
    assert "db.create_tables()" in notes
    assert "alembic upgrade head" in notes


@pytest.mark.parametrize("scheme", marked(SYNCHRONOUS))
@pytest.mark.parametrize("read_only", [False, True])
def test_a_session_says_so(request: pytest.FixtureRequest, scheme: str, read_only: bool) -> None:
    statement = STATEMENTS[0] if read_only else STATEMENTS[1]
    with (
        registry_of(scheme, request) as db,
        db.session(read_only=read_only) as session,
        pytest.raises(DBAPIError) as missed,
    ):
        session.connection().execute(text(statement))
    assert_explained(missed.value)


@pytest.mark.parametrize("scheme", marked(ASYNCHRONOUS))
@pytest.mark.parametrize("read_only", [False, True])
def test_an_asynchronous_session_says_so(request: pytest.FixtureRequest, scheme: str, read_only: bool) -> None:
    db = registry_of(scheme, request)

    async def read() -> None:
        async with db.async_session(read_only=read_only) as session:
            connection = await session.connection()
            await connection.execute(text(STATEMENTS[0]))

    with pytest.raises(DBAPIError) as missed:
        asyncio.run(read())
    assert_explained(missed.value)


def test_another_error_of_a_statement_has_no_such_note(request: pytest.FixtureRequest) -> None:
    with registry_of("sqlite", request) as db, db.engine().connect() as connection:
        with pytest.raises(DBAPIError) as wrong:
            connection.execute(text("SELEKT 'no such table: hero'"))
        assert not hasattr(wrong.value, "__notes__")
