"""aiosqlite's connection ends at any moment, as often as somebody likes, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

aiosqlite = pytest.importorskip("aiosqlite")

from dbconfig.engine.dialects.sqlite.aiosqlite_connection import Connection, connect  # noqa: E402

LIMIT = 60.0  # seconds after which something counts as hanging


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(LIMIT):
            await work()

    asyncio.run(main())


def ends(connection: Any) -> bool:
    connection._thread.join(LIMIT)
    return not connection._thread.is_alive()


def is_closed(connection: sqlite3.Connection) -> bool:
    try:
        connection.interrupt()
    except sqlite3.ProgrammingError:
        return True
    return False


class Held:
    """A function of SQL that holds up the thread which executes it."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> int:
        self.begun.set()
        assert self.go_on.wait(LIMIT)
        return 1

    async def execute(self, connection: Any) -> asyncio.Task[Any]:
        await connection.create_function("hold", 0, self)
        task = asyncio.ensure_future(connection.execute_fetchall("SELECT hold()"))
        await asyncio.to_thread(self.begun.wait, LIMIT)
        return task


def test_it_works_as_aiosqlite_does() -> None:
    async def work() -> None:
        async with connect(":memory:") as connection:
            assert isinstance(connection, aiosqlite.Connection)
            assert list(await connection.execute_fetchall("SELECT 1")) == [(1,)]
            with pytest.raises(sqlite3.OperationalError, match="syntax"):
                await connection.execute("SELEC")
        assert ends(connection)
        with pytest.raises(ValueError, match="no active connection"):
            await connection.commit()

    run(work)


def test_a_connection_that_cannot_be_opened_says_so_and_ends() -> None:
    async def work() -> None:
        connection = connect("/no/such/folder/app.db")
        with pytest.raises(sqlite3.OperationalError, match="unable to open"):
            await connection
        assert ends(connection)

    run(work)


def test_many_closes_at_once_all_end() -> None:
    async def work() -> None:
        connection = await connect(":memory:")
        held = Held()
        statement = await held.execute(connection)
        closes = [asyncio.ensure_future(connection.close()) for _ in range(3)]
        await asyncio.sleep(0)
        connection.stop()
        connection.stop()
        held.go_on.set()
        results = await asyncio.gather(statement, *closes, return_exceptions=True)
        assert all(isinstance(each, ValueError | sqlite3.Error | list | None) for each in results)
        await connection.close()
        assert ends(connection)

    run(work)


def test_a_close_that_is_cancelled_does_not_wait_for_the_thread_and_the_connection_closes_all_the_same() -> None:
    async def work() -> None:
        connection = await connect(":memory:")
        opened = connection._conn
        held = Held()
        statement = await held.execute(connection)
        close = asyncio.ensure_future(connection.close())
        await asyncio.sleep(0)
        close.cancel()
        with pytest.raises(asyncio.CancelledError):
            await close  # while the thread still works
        held.go_on.set()
        await asyncio.wait([statement])
        assert statement.exception() is None or isinstance(statement.exception(), sqlite3.OperationalError)
        assert ends(connection)
        assert is_closed(opened)

    run(work)


def test_what_runs_is_interrupted_by_a_stop() -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

    async def work() -> None:
        connection = await connect(":memory:")
        begun = threading.Event()
        await connection.set_progress_handler(begun.set, 1000)
        statement = asyncio.ensure_future(connection.execute_fetchall(endless))
        await asyncio.to_thread(begun.wait, LIMIT)
        connection.stop()
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            await statement
        assert ends(connection)

    run(work)


def test_a_connection_whose_opener_was_cancelled_is_closed() -> None:
    opened: list[sqlite3.Connection] = []
    begun, go_on = threading.Event(), threading.Event()

    def slowly() -> sqlite3.Connection:
        begun.set()
        assert go_on.wait(LIMIT)
        opened.append(sqlite3.connect(":memory:", check_same_thread=False))
        return opened[0]

    async def work() -> None:
        connection = Connection(slowly, 64)

        async def open_it() -> None:
            await connection

        opening = asyncio.ensure_future(open_it())
        await asyncio.to_thread(begun.wait, LIMIT)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        go_on.set()
        assert ends(connection)

    run(work)
    assert is_closed(opened[0])


class Broken(asyncio.SelectorEventLoop):
    """A loop that is open, and has nowhere to put a result."""

    out_of_order = False

    def call_soon_threadsafe(self, *given: Any, **options: Any) -> Any:
        if self.out_of_order:
            raise RuntimeError("out of order")
        return super().call_soon_threadsafe(*given, **options)


def test_a_result_that_an_open_loop_does_not_take_is_an_error_and_not_an_endless_wait() -> None:
    loop = Broken()
    try:
        connection = connect(":memory:")
        waited = loop.create_future()
        connection.stop()
        loop.out_of_order = True
        with pytest.raises(RuntimeError, match="out of order"):
            connection._tx.put_nowait((waited, int))
        loop.close()
        connection._tx.put_nowait((waited, int))  # its caller no longer waits
    finally:
        loop.close()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_outlives_its_loop_ends_in_silence() -> None:
    held, left = Held(), []

    async def work() -> None:
        connection = await connect(":memory:")
        left.append(connection)
        statement = await held.execute(connection)
        statement.cancel()
        await asyncio.wait([statement])

    run(work)
    held.go_on.set()  # into a loop that is closed
    left[0].stop()
    assert ends(left[0])
