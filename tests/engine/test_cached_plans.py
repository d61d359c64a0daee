"""A table that another process alters, while this one keeps statements prepared that the server then refuses."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from dbconfig import Registry
from tests.registries import registry
from tests.support.servers import Server

READ = text("SELECT * FROM altered")
DRIVERS = (("psycopg", False), ("psycopg", True), ("asyncpg", True), ("psycopg2", False))


@pytest.mark.parametrize("behind", ["reading", "autocommit", "unit"])
@pytest.mark.parametrize(("driver", "asynchronous"), DRIVERS)
def test_an_altered_table_costs_a_reader_one_error_and_a_unit_of_work_none(
    postgresql: Server, driver: str, asynchronous: bool, behind: str
) -> None:
    pytest.importorskip(driver)
    settings = {"isolation_level": "AUTOCOMMIT"} if behind == "autocommit" else {}
    with (
        registry(postgresql.url(f"postgresql+{driver}"), pool_size=1, max_overflow=0, **settings) as db,
        asyncio.Runner() as runner,
    ):
        attempt = _asynchronously(db, runner, behind) if asynchronous else _synchronously(db, behind)
        postgresql.sql("CREATE TABLE altered (id INT)")
        for _ in range(12):  # psycopg prepares a statement at its sixth execution
            attempt()
        postgresql.sql("ALTER TABLE altered ADD COLUMN x INT DEFAULT 5")
        errors = []
        for _ in range(4):
            try:
                attempt()
            except DBAPIError as error:
                errors.append(error)
        runner.run(db.async_dispose())
        assert len(errors) <= (0 if behind == "unit" else 1), errors


def _synchronously(db: Registry, behind: str) -> Callable[[], Any]:
    def read() -> Any:
        if behind == "unit":
            return db.run_in_transaction(lambda session: session.execute(READ).all())
        with db.session(read_only=behind == "reading") as session:
            return session.execute(READ).all()

    return read


def _asynchronously(db: Registry, runner: asyncio.Runner, behind: str) -> Callable[[], Any]:
    async def work(session: Any) -> Any:
        return (await session.exec(READ)).all()

    async def read() -> Any:
        if behind == "unit":
            return await db.async_run_in_transaction(work)
        async with db.async_session(read_only=behind == "reading") as session:
            return await work(session)

    return lambda: runner.run(read())


# As of Celery's soft time limit in a worker's first task; the next import finishes the package without its submodules.
INTERRUPTED = """
import sys

class Interrupt(BaseException):
    pass

def strike(frame, kind, argument):
    if frame.f_code.co_filename.endswith("psycopg/__init__.py") and "psycopg.errors" in sys.modules:
        raise Interrupt
    return strike

sys.settrace(strike)
try:
    import psycopg
except Interrupt:
    pass
sys.settrace(None)

from dbconfig import Profile, Registry

with Registry.from_profile(Profile(name="p", url="postgresql+psycopg://u@127.0.0.1:1/d", pool_timeout=1)) as db:
    try:
        db.engine().connect()
    except Exception as error:
        print(type(error).__name__)
"""


def test_an_import_of_psycopg_that_was_interrupted_hides_no_error() -> None:
    pytest.importorskip("psycopg")
    found = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120)
    assert (found.stdout, found.stderr) == ("OperationalError\n", "")
