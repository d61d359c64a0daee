"""Which styles of parameters a driver takes: what is refused is what fails in fact."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import URL, Column, Integer, MetaData, String, Table, create_engine, insert, make_url, select
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from dbconfig.settings.known_drivers import not_its_paramstyle

STYLES = ("qmark", "numeric", "numeric_dollar", "named", "format", "pyformat")
SYNCHRONOUS = ("sqlite+pysqlite", "postgresql+psycopg2", "postgresql+psycopg", "mysql+pymysql")
ASYNCHRONOUS = (
    "sqlite+aiosqlite",
    "postgresql+asyncpg",
    "postgresql+psycopg_async",
    "mysql+asyncmy",
    "mysql+aiomysql",
)
MODULES = {"pysqlite": "sqlite3", "psycopg_async": "psycopg"}
TABLE = Table("styles", MetaData(), Column("name", String(20)), Column("size", Integer))


def use(connection: Connection) -> None:
    """Insert and select with one and several parameters; what is inserted is rolled back."""
    TABLE.metadata.create_all(connection)
    connection.execute(insert(TABLE), {"size": 1, "name": "100 %"})
    connection.execute(insert(TABLE), [{"name": "a:b", "size": 2}, {"name": "c?", "size": 3}])
    wanted = select(TABLE.c.name).where(TABLE.c.size.in_([1, 3]), TABLE.c.name != "a:b").order_by(TABLE.c.size)
    assert connection.execute(wanted).scalars().all() == ["100 %", "c?"]


def works(url: URL, style: str) -> bool:
    async def use_asynchronously() -> None:
        engine = create_async_engine(url, paramstyle=style, poolclass=NullPool)
        async with engine.connect() as connection:
            await connection.run_sync(use)

    try:
        if url.drivername in ASYNCHRONOUS:
            asyncio.run(use_asynchronously())
        else:
            engine = create_engine(url, paramstyle=style, poolclass=NullPool)
            with engine.connect() as connection:
                use(connection)
    except Exception:
        return False
    return True


def drivernames() -> list[object]:
    """Mark those of a server here: its fixture is asked for by name only when the test runs."""
    return [
        pytest.param(each, marks=() if each.startswith("sqlite") else pytest.mark.server)
        for each in (*SYNCHRONOUS, *ASYNCHRONOUS)
    ]


@pytest.mark.parametrize("drivername", drivernames())
def test_the_styles_that_are_refused_are_those_that_a_driver_does_not_take(
    drivername: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    system, _, driver = drivername.partition("+")
    pytest.importorskip(MODULES.get(driver, driver))
    taken = set()
    for style in STYLES:
        if system == "sqlite":
            url = URL.create(drivername, database=str(tmp_path / f"{style}.db"))
        else:
            server = request.getfixturevalue({"mysql": "mariadb"}.get(system, system))
            url = make_url(server.url()).set(drivername=drivername)
        if works(url, style):
            taken.add(style)
    assert taken == {style for style in STYLES if not not_its_paramstyle(style, drivername)}
