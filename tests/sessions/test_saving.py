"""What a session saves and what it does not, in threads and in tasks: one test says what both do, with each driver."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import await_only, greenlet_spawn
from sqlmodel import Field, MetaData, Session, SQLModel, select

from dbconfig import Registry
from tests.sessions.conftest import Units, units_of
from tests.support.drivers import BY_NAME, of


class Base(SQLModel):
    metadata = MetaData()


class Wheel(Base, table=True):
    __tablename__ = "saving_wheel"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)


class Sessions:
    """The sessions of a registry with one interface: those of asyncio are awaited by the caller of the work."""

    def __init__(self, db: Registry, *, asynchronous: bool) -> None:
        self._db, self._asynchronous = db, asynchronous

    @contextmanager
    def session(self, verb: str = "session") -> Iterator[Session]:
        if not self._asynchronous:
            with getattr(self._db, verb)() as session:
                yield session
            return
        opened = getattr(self._db, f"async_{verb}")()
        session = await_only(opened.__aenter__()).sync_session
        try:
            yield session
        except BaseException as error:
            if not await_only(opened.__aexit__(type(error), error, error.__traceback__)):
                raise
        else:
            await_only(opened.__aexit__(None, None, None))

    def names(self) -> list[str]:
        with self.session() as session:
            return list(session.scalars(select(Wheel.name).order_by(Wheel.name)))


Run = Callable[[Callable[[Sessions], None]], None]


@pytest.fixture(params=[*BY_NAME, "sqlite in memory", "aiosqlite in memory"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a function of sessions in a thread or a task, on a fresh database with the table."""
    name = request.param
    if name.endswith("in memory"):
        pytest.importorskip({"sqlite": "sqlite3"}.get(name.split()[0], name.split()[0]))
        units = Units("sqlite", name.startswith("aio"), "sqlite://", "")
    else:
        units = units_of(name, request)

    def furnished(work: Callable[[Sessions], None], sessions: Sessions) -> None:
        with sessions.session() as session:
            Base.metadata.create_all(session.connection())
            session.commit()
        work(sessions)

    def run(work: Callable[[Sessions], None]) -> None:
        with units.open() as db:
            if not units.asynchronous:
                furnished(work, Sessions(db, asynchronous=False))
                assert db.engine().pool.checkedout() == 0  # type: ignore[attr-defined]
                return

            async def main() -> None:
                try:
                    await greenlet_spawn(furnished, work, Sessions(db, asynchronous=True))
                    assert db.async_engine().pool.checkedout() == 0  # type: ignore[attr-defined]
                finally:
                    await db.async_dispose()

            asyncio.run(main())

    return run


def test_a_session_never_commits_by_itself(run: Run) -> None:
    def work(sessions: Sessions) -> None:
        with sessions.session() as session:
            session.add(Wheel(name="lost"))
            session.flush()
        assert sessions.names() == []
        with sessions.session() as session:
            session.add(Wheel(name="kept"))
            session.commit()
        assert sessions.names() == ["kept"]

    run(work)


def test_a_transaction_commits_at_its_end(run: Run) -> None:
    def work(sessions: Sessions) -> None:
        with sessions.session("transaction") as session:
            session.add(Wheel(name="kept"))
        assert sessions.names() == ["kept"]

    run(work)


def test_a_transaction_rolls_back_and_the_exception_is_the_callers_own(run: Run) -> None:
    def work(sessions: Sessions) -> None:
        raised = LookupError("the application's own")
        with pytest.raises(LookupError) as caught, sessions.session("transaction") as session:  # noqa: PT012
            session.add(Wheel(name="lost"))
            session.flush()
            raise raised
        assert caught.value is raised
        assert sessions.names() == []

    run(work)


def test_a_savepoint_is_rolled_back_alone(run: Run) -> None:
    def work(sessions: Sessions) -> None:
        with sessions.session("transaction") as session:
            session.add(Wheel(name="outer"))
            session.flush()
            with pytest.raises(LookupError), session.begin_nested():  # noqa: PT012
                session.add(Wheel(name="inner"))
                session.flush()
                raise LookupError
            with session.begin_nested():
                session.add(Wheel(name="within"))
        assert sessions.names() == ["outer", "within"]

    run(work)


def test_a_table_that_is_not_committed_is_gone(run: Run, request: pytest.FixtureRequest) -> None:
    if BY_NAME.get(request.node.callspec.params["run"]) in of("mariadb"):
        pytest.skip("its CREATE TABLE commits")

    def work(sessions: Sessions) -> None:
        with sessions.session() as session:
            session.execute(text("CREATE TABLE gone (id INTEGER)"))
        with sessions.session() as session, pytest.raises(DBAPIError, match="gone"):
            session.execute(text("SELECT * FROM gone"))

    run(work)
