"""Which styles of parameters a driver takes: what is refused is what fails in fact."""

import asyncio

import pytest
from sqlalchemy import URL, Column, Integer, MetaData, String, Table, create_engine, insert, make_url, select
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from dbconfig.settings.known_drivers import not_its_paramstyle
from tests.support.drivers import DRIVERS, Driver, params

STYLES = ("qmark", "numeric", "numeric_dollar", "named", "format", "pyformat")
DIALECT = {"sqlite3": "sqlite+pysqlite", "psycopg-async": "postgresql+psycopg_async"}  # as SQLAlchemy calls it
TABLE = Table("styles", MetaData(), Column("name", String(20)), Column("size", Integer))


def use(connection: Connection) -> None:
    """Insert and select with one and several parameters; what is inserted is rolled back."""
    TABLE.metadata.create_all(connection)
    connection.execute(insert(TABLE), {"size": 1, "name": "100 %"})
    connection.execute(insert(TABLE), [{"name": "a:b", "size": 2}, {"name": "c?", "size": 3}])
    wanted = select(TABLE.c.name).where(TABLE.c.size.in_([1, 3]), TABLE.c.name != "a:b").order_by(TABLE.c.size)
    assert connection.execute(wanted).scalars().all() == ["100 %", "c?"]


def works(url: URL, style: str, *, asynchronous: bool) -> bool:
    async def use_asynchronously() -> None:
        engine = create_async_engine(url, paramstyle=style, poolclass=NullPool)
        async with engine.connect() as connection:
            await connection.run_sync(use)

    try:
        if asynchronous:
            asyncio.run(use_asynchronously())
        else:
            engine = create_engine(url, paramstyle=style, poolclass=NullPool)
            with engine.connect() as connection:
                use(connection)
    except Exception:
        return False
    return True


@pytest.mark.parametrize("driver", params(DRIVERS))
def test_the_styles_that_are_refused_are_those_that_a_driver_does_not_take(
    driver: Driver, request: pytest.FixtureRequest
) -> None:
    drivername = DIALECT.get(driver.name, driver.scheme)
    url = make_url(driver.url(request)).set(drivername=drivername)
    taken = set()
    for style in STYLES:
        if works(url, style, asynchronous=driver.asynchronous):
            taken.add(style)
    assert taken == {style for style in STYLES if not not_its_paramstyle(style, drivername)}
