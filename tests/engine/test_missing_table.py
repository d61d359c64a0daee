"""A statement on a table that is not there yet: the error says how tables are made, on every driver."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from dbconfig import Profile, Registry
from tests.support.drivers import ASYNCHRONOUS, BY_NAME, SYNCHRONOUS, Driver, params

STATEMENTS = ("SELECT * FROM hero", "DELETE FROM hero")


def registry_of(driver: Driver, request: pytest.FixtureRequest) -> Registry:
    return Registry.from_profile(Profile(name="case", url=driver.url(request)))


def assert_explained(error: DBAPIError) -> None:
    notes = "\n".join(error.__notes__)
    assert "dbconfig[missing-table]" in notes
    assert "db.create_tables()" in notes
    assert "alembic upgrade head" in notes


@pytest.mark.parametrize("driver", params(SYNCHRONOUS))
@pytest.mark.parametrize("read_only", [False, True])
def test_a_session_says_so(request: pytest.FixtureRequest, driver: Driver, read_only: bool) -> None:
    statement = STATEMENTS[0] if read_only else STATEMENTS[1]
    with (
        registry_of(driver, request) as db,
        db.session(read_only=read_only) as session,
        pytest.raises(DBAPIError) as missed,
    ):
        session.connection().execute(text(statement))
    assert_explained(missed.value)


@pytest.mark.parametrize("driver", params(ASYNCHRONOUS))
@pytest.mark.parametrize("read_only", [False, True])
def test_an_asynchronous_session_says_so(request: pytest.FixtureRequest, driver: Driver, read_only: bool) -> None:
    db = registry_of(driver, request)

    async def read() -> None:
        async with db.async_session(read_only=read_only) as session:
            connection = await session.connection()
            await connection.execute(text(STATEMENTS[0]))

    with pytest.raises(DBAPIError) as missed:
        asyncio.run(read())
    assert_explained(missed.value)


def test_another_error_of_a_statement_has_no_such_note(request: pytest.FixtureRequest) -> None:
    with registry_of(BY_NAME["sqlite3"], request) as db, db.engine().connect() as connection:
        with pytest.raises(DBAPIError) as wrong:
            connection.execute(text("SELEKT 'no such table: hero'"))
        assert not hasattr(wrong.value, "__notes__")
