"""MySQL and MariaDB: a connection to which nothing was sent is not called idle in transaction."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from dbconfig import Profile, Registry
from dbconfig.engine.dialects import driver_protocol
from tests.support.mariadb import MariaDBServer


def states(connection: Connection, engine: Engine) -> list[bool]:
    """Whether a transaction is taken for open: at first, after a statement, and after the COMMIT."""
    driver = driver_protocol.of(engine.dialect)
    own: Any = connection.connection.driver_connection
    found = [driver.in_transaction(own)]
    connection.execute(text("SELECT 1"))
    found.append(driver.in_transaction(own))
    connection.commit()
    return [*found, driver.in_transaction(own)]


def by_threads(db: Registry) -> list[bool]:
    engine = db.engine()
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    with engine.connect() as connection:
        return states(connection, engine)


def by_tasks(db: Registry) -> list[bool]:
    async def work() -> list[bool]:
        engine = db.async_engine()
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        async with engine.connect() as connection:
            found: list[bool] = await connection.run_sync(states, engine.sync_engine)
        await db.async_dispose()
        return found

    return asyncio.run(work())


@pytest.mark.server
@pytest.mark.parametrize(("driver", "look"), [("pymysql", by_threads), ("asyncmy", by_tasks), ("aiomysql", by_tasks)])
def test_a_connection_to_which_nothing_was_sent_is_in_no_transaction(
    mariadb: MariaDBServer, driver: str, look: Callable[[Registry], list[bool]]
) -> None:
    pytest.importorskip(driver)
    with Registry.from_profile(Profile(name="idle", url=mariadb.url(f"mysql+{driver}"), pool_size=1)) as db:
        assert look(db) == [False, True, False]
