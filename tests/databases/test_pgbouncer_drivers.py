"""What is sent by a driver's own means in a reading session behind PgBouncer is under the same guard."""

import asyncio
import io
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from psycopg2.extras import DictCursor

from dbconfig import Registry
from tests.pooled import Kind
from tests.support.pgbouncer import pgbouncer
from tests.support.postgresql import PostgreSQLServer

INSERT = "INSERT INTO pooled VALUES (1)"
REFUSED = "read-only transaction"


@contextmanager
def reader(server: PostgreSQLServer, driver: str, *, asynchronous: bool = False) -> Iterator[Registry]:
    """Yield a registry; nothing may have been written in the end."""
    server.sql("CREATE TABLE pooled (value integer)")
    server.sql(f"CREATE FUNCTION put() RETURNS void LANGUAGE sql AS '{INSERT}'")
    with pgbouncer(server, size=1) as shared, Kind(driver, asynchronous).registries(server, shared.port) as open_:
        yield open_(statement_timeout="5s")
        assert server.sql("SELECT count(*) FROM pooled") == [(0,)]


def test_psycopg2_sends_nothing_without_the_guard(postgresql: PostgreSQLServer) -> None:
    from psycopg2 import sql

    ways: dict[str, Callable[[Any, Any], object]] = {
        "bytes": lambda cursor, driver: cursor.execute(INSERT.encode()),
        "composed": lambda cursor, driver: cursor.execute(sql.SQL(INSERT)),
        "parameters": lambda cursor, driver: cursor.execute("INSERT INTO pooled VALUES (%s)", (1,)),
        "executemany": lambda cursor, driver: cursor.executemany("INSERT INTO pooled VALUES (%s)", [(1,), (2,)]),
        "callproc": lambda cursor, driver: cursor.callproc("put"),
        "copy_expert": lambda cursor, driver: cursor.copy_expert("COPY pooled FROM STDIN", io.StringIO("1\n")),
        "copy_from": lambda cursor, driver: cursor.copy_from(io.StringIO("1\n"), "pooled"),
        "own cursor": lambda cursor, driver: driver.cursor(cursor_factory=DictCursor).execute(INSERT),
        "its transaction": lambda cursor, driver: (setattr(driver, "autocommit", False), cursor.execute(INSERT)),
    }
    with reader(postgresql, "psycopg2") as db, db.session(read_only=True) as session:
        for name, way in ways.items():
            driver: Any = session.connection().connection.driver_connection
            with pytest.raises(Exception, match=REFUSED):
                print(name, way(driver.cursor(), driver))
            session.rollback()
        driver = session.connection().connection.driver_connection
        driver.autocommit = True
        with pytest.raises(Exception, match="two phases"):
            driver.tpc_begin("name")
        # What the driver would set for the session, so for others too.
        driver.set_session(readonly=True, deferrable=True)
        cursor = driver.cursor()
        answer = io.StringIO()
        cursor.copy_expert("COPY (SELECT current_setting('statement_timeout')) TO STDOUT", answer)
        assert answer.getvalue() == "5s\n"
        session.rollback()
        with db.session() as writing:
            shown = writing.connection().exec_driver_sql("SHOW default_transaction_read_only").scalar()
            assert shown == "off"


def test_psycopg_sends_nothing_without_the_guard(postgresql: PostgreSQLServer) -> None:
    pytest.importorskip("psycopg")
    from psycopg import sql

    def copied(cursor: Any, driver: Any) -> None:
        with cursor.copy("COPY pooled FROM STDIN") as copy:
            copy.write("1\n")

    def in_its_transaction(cursor: Any, driver: Any) -> None:
        with driver.transaction():
            cursor.execute(INSERT)

    ways: dict[str, Callable[[Any, Any], object]] = {
        "bytes": lambda cursor, driver: cursor.execute(INSERT.encode()),
        "composed": lambda cursor, driver: cursor.execute(sql.SQL(INSERT)),
        "parameters": lambda cursor, driver: cursor.execute("INSERT INTO pooled VALUES (%s)", (1,), prepare=True),
        "executemany": lambda cursor, driver: cursor.executemany("INSERT INTO pooled VALUES (%s)", [(1,), (2,)]),
        "copy": copied,
        "stream": lambda cursor, driver: list(cursor.stream(INSERT + " RETURNING *")),
        "by the connection": lambda cursor, driver: driver.execute(INSERT),
        "its transaction": in_its_transaction,
    }
    with reader(postgresql, "psycopg") as db, db.session(read_only=True) as session:
        for name, way in ways.items():
            driver: Any = session.connection().connection.driver_connection
            with driver.cursor() as cursor, pytest.raises(Exception, match=REFUSED):
                print(name, way(cursor, driver))
            session.rollback()
        driver = session.connection().connection.driver_connection
        cursor = driver.execute("SHOW statement_timeout")
        assert (cursor.fetchall(), cursor.rowcount, cursor.nextset()) == ([("5s",)], 1, None)
        cursor.executemany("SELECT %s + 1", [(1,), (2,)], returning=True)
        assert [one.fetchall() for one in cursor.results()] == [[(2,)], [(3,)]]
        assert list(cursor.stream("SHOW statement_timeout")) == [("5s",)]


def test_psycopg_sends_nothing_without_the_guard_asynchronously(postgresql: PostgreSQLServer) -> None:
    pytest.importorskip("psycopg")

    async def copied(cursor: Any, driver: Any) -> None:
        async with cursor.copy("COPY pooled FROM STDIN") as copy:
            await copy.write("1\n")

    async def streamed(cursor: Any, driver: Any) -> list[Any]:
        return [row async for row in cursor.stream(INSERT + " RETURNING *")]

    async def in_its_transaction(cursor: Any, driver: Any) -> None:
        async with driver.transaction():
            await cursor.execute(INSERT)

    ways: dict[str, Callable[[Any, Any], Awaitable[object]]] = {
        "bytes": lambda cursor, driver: cursor.execute(INSERT.encode()),
        "executemany": lambda cursor, driver: cursor.executemany("INSERT INTO pooled VALUES (%s)", [(1,), (2,)]),
        "copy": copied,
        "stream": streamed,
        "by the connection": lambda cursor, driver: driver.execute(INSERT),
        "its transaction": in_its_transaction,
    }

    async def main(db: Registry) -> None:
        async with db, db.async_session(read_only=True) as session:
            for name, way in ways.items():
                driver: Any = (await (await session.connection()).get_raw_connection()).driver_connection
                async with driver.cursor() as cursor:
                    with pytest.raises(Exception, match=REFUSED):
                        print(name, await way(cursor, driver))
                await session.rollback()

    with reader(postgresql, "psycopg", asynchronous=True) as db:
        asyncio.run(main(db))


def test_asyncpg_sends_nothing_without_the_guard(postgresql: PostgreSQLServer) -> None:
    pytest.importorskip("asyncpg")

    async def in_its_transaction(driver: Any) -> None:
        async with driver.transaction():
            await driver.execute(INSERT)

    async def prepared(driver: Any) -> None:
        await (await driver.prepare(INSERT)).fetch()

    values = "INSERT INTO pooled VALUES ($1)"
    ways: dict[str, Callable[[Any], Awaitable[object]]] = {
        "execute": lambda driver: driver.execute(INSERT),
        "execute several": lambda driver: driver.execute(f"SELECT 1; {INSERT}"),
        "execute with parameters": lambda driver: driver.execute(values, 1),
        "executemany": lambda driver: driver.executemany(values, [(1,), (2,)]),
        "fetch": lambda driver: driver.fetch(INSERT + " RETURNING *"),
        "fetchrow": lambda driver: driver.fetchrow(INSERT + " RETURNING *"),
        "fetchval": lambda driver: driver.fetchval(INSERT + " RETURNING *"),
        "copy_records_to_table": lambda driver: driver.copy_records_to_table("pooled", records=[(1,)]),
        "prepare": prepared,
        "its transaction": in_its_transaction,
    }

    async def main(db: Registry) -> None:
        async with db, db.async_session(read_only=True) as session:
            for name, way in ways.items():
                driver: Any = (await (await session.connection()).get_raw_connection()).driver_connection
                with pytest.raises(Exception, match=REFUSED):
                    print(name, await way(driver))
                await session.rollback()
            driver = (await (await session.connection()).get_raw_connection()).driver_connection
            async with driver.transaction():
                assert await driver.fetchval("SHOW statement_timeout") == "5s"
            answer = io.BytesIO()
            await driver.copy_from_query("SELECT 1", output=answer)
            assert answer.getvalue() == b"1\n"

    with reader(postgresql, "asyncpg", asynchronous=True) as db:
        asyncio.run(main(db))
