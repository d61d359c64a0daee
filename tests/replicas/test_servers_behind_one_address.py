"""One address, several servers: a balancer, a group of hosts, a replica that was restored from an older copy."""

import asyncio
import contextvars
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlmodel import Session

from dbconfig import Registry
from dbconfig.engine.dialects.postgresql.driver import LibpqDriver
from dbconfig.replicas import positions
from tests.groups import Group, Note
from tests.support.proxy import Proxy

pytestmark = pytest.mark.server

DRIVERS = [("psycopg2", "sync"), ("psycopg", "sync"), ("asyncpg", "async"), ("psycopg", "async")]


class Reader:
    """Sessions of a registry, sync or async, by the same calls."""

    def __init__(self, db: Registry, style: str) -> None:
        self.db = db
        self._runner = asyncio.Runner() if style == "async" else None
        self._context = contextvars.copy_context()

    def write(self) -> int:
        def work(session: Session) -> int:
            note = Note()
            session.add(note)
            session.flush()
            assert note.id is not None
            return note.id

        if self._runner is None:
            return self.db.run_in_transaction(work)

        async def twin(session: Any) -> int:
            return int(await session.run_sync(work))

        return int(self._run(self.db.async_run_in_transaction(twin)))

    def read(self, sessions: int, question: str) -> list[Any]:
        """Return what so many sessions see that are open at the same time."""
        if self._runner is None:
            with ExitStack() as stack:
                opened = [stack.enter_context(self.db.session(read_only=True)) for _ in range(sessions)]
                return [session.scalar(text(question)) for session in opened]

        async def twin() -> list[Any]:
            opened = [self.db.async_session(read_only=True) for _ in range(sessions)]
            try:
                return [await session.scalar(text(question)) for session in opened]
            finally:
                for session in opened:
                    await session.close()

        found: list[Any] = self._run(twin())
        return found

    def _run(self, work: Any) -> Any:
        assert self._runner is not None
        # In one context, as the statements of one request.
        return self._runner.run(work, context=self._context)

    def close(self) -> None:
        if self._runner is not None:
            self._runner.close()
        self.db.dispose()


@pytest.fixture(params=DRIVERS, ids="-".join)
def reader(group: Group, request: pytest.FixtureRequest) -> Callable[..., Any]:
    driver, style = request.param
    pytest.importorskip(driver)

    @contextmanager
    def opened(server: Proxy, **more: object) -> Iterator[Reader]:
        replica = {"host": server.host, "port": server.port}
        settings = {"pool_size": 4, "max_overflow": 0, "replicas": [replica], **more}
        made = Reader(group.registry(url=group.primary.url(f"postgresql+{driver}"), **settings), style)
        try:
            yield made
        finally:
            made.close()

    return opened


PORT = "SELECT inet_server_port()"


def test_behind_a_balancer_each_server_is_trusted_for_what_it_has_itself(
    group: Group, reader: Callable[..., Any]
) -> None:
    quick, slow = group.replicas
    with Proxy(quick.host, quick.port) as balancer, reader(balancer) as sessions:
        assert sessions.read(1, PORT) == [quick.port]
        balancer.lead_to(slow.host, slow.port)
        assert sorted(sessions.read(2, PORT)) == sorted([quick.port, slow.port])
        slow.sql("SELECT pg_wal_replay_pause()")
        for _ in range(5):
            number = sessions.write()
            quick.catch_up()
            seen = sessions.read(2, f"SELECT count(*) FROM replica_note WHERE id = {number}")
            assert seen == [1, 1]
        served = set(sessions.read(2, PORT))
        assert slow.port not in served
        assert quick.port in served  # which has it, and is read from


def test_a_server_that_takes_the_place_of_another_is_asked_anew(group: Group, reader: Callable[..., Any]) -> None:
    """As one that was restored from an older copy, under the same name."""
    first, restored = group.replicas
    with Proxy(first.host, first.port) as address, reader(address, pool_pre_ping=True) as sessions:
        sessions.read(1, PORT)
        restored.sql("SELECT pg_wal_replay_pause()")
        number = sessions.write()
        first.catch_up()
        look = f"SELECT count(*) FROM replica_note WHERE id = {number}"
        assert sessions.read(1, look) == [1]
        address.lead_to(restored.host, restored.port)
        address.cut()
        address.pass_through()
        for _ in range(3):
            assert sessions.read(1, look) == [1]


def test_a_server_is_asked_once_for_each_connection(group: Group, reader: Callable[..., Any]) -> None:
    quick = group.replicas[0]
    with Proxy(quick.host, quick.port) as address, reader(address) as sessions:
        sessions.write()
        quick.catch_up()
        sessions.read(1, PORT)
        before = address.round_trips()
        sessions.read(1, PORT)
        assert address.round_trips() - before == 1  # the statement alone


def test_a_pooler_is_asked_once_whether_it_is_pgpool(group: Group) -> None:
    """It tells a number of its own; PostgreSQL does not know the question, and each statement goes to one server."""
    engine = create_engine(group.primary.url("postgresql+psycopg2"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for _ in range(2):
            positions._refuse_pgpool(connection, -1)
        assert connection.connection.info[positions._SINGLE]
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


def test_behind_pgpool_nobody_can_know(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pgpool-II answers the question; here PostgreSQL answers another one in its place."""
    monkeypatch.setattr(positions, "_PGPOOL", "SELECT '4.3'")
    monkeypatch.setattr(positions.driver.Driver, "number", lambda self, connection: -1)
    monkeypatch.setattr(LibpqDriver, "number", lambda self, connection: -1)
    with group.registry() as db:
        with db.transaction() as session:
            session.add(Note())
        with pytest.raises(positions.CannotKnow, match="Pgpool-II"), db.session(read_only=True) as session:
            session.scalar(text("SELECT 1"))
    with group.registry(read_your_writes=False) as db:
        with db.transaction() as session:
            session.add(Note())
        with db.session(read_only=True) as session:
            assert session.scalar(text("SELECT 1")) == 1
