"""Tenants by schema: does a session ever see a row of another tenant, and how many connections do all of them take?

python -m benchmarks.tenants --tenants 1000 --threads 8 --tasks 50 --sessions 10000

Each session belongs to a tenant drawn at random. It reads, writes and reads, rolls a write back, fails in the middle of
a transaction, or reads read-only, in turns; whatever it sees has to be its own tenant's. Threads, then tasks.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from sqlalchemy import MetaData, func, text
from sqlmodel import Field, Session, SQLModel, col, select

from dbconfig import Profile, Registry
from tests.support import servers
from tests.support.postgresql import PostgreSQLServer

POOL: Final = 6


class Base(SQLModel):
    metadata = MetaData()


class Note(Base, table=True):
    __tablename__ = "tenant_note"
    id: int | None = Field(default=None, primary_key=True)
    tenant: int


class Planned(Exception):
    """Ends a transaction in the middle."""


class Count:
    """What all sessions together have seen."""

    def __init__(self) -> None:
        self.sessions: Counter[str] = Counter()
        self.foreign = 0  # rows of another tenant
        self.written: Counter[int] = Counter()
        self._lock = threading.Lock()

    def note(self, kind: str, tenant: int, seen: list[int], *, wrote: bool = False) -> None:
        with self._lock:
            self.sessions[kind] += 1
            self.foreign += sum(each != tenant for each in seen)
            self.written[tenant] += wrote


def seen(session: Session) -> list[int]:
    return list(session.exec(select(Note.tenant)))


def write(session: Session, tenant: int) -> list[int]:
    before = seen(session)
    session.add(Note(tenant=tenant))
    session.flush()
    return before + seen(session)


def fail(session: Session, tenant: int) -> None:
    write(session, tenant)
    raise Planned


def one(db: Registry, count: Count, number: int) -> None:
    """Run one session of a thread."""
    tenant = random.randrange(count_of(db))
    schema, kind = f"tenant_{tenant}", KINDS[number % len(KINDS)]
    found: list[int] = []
    if kind == "read_only":
        with db.session(schema=schema, read_only=True) as session:
            found = seen(session)
    elif kind == "transaction":
        with db.transaction(schema=schema) as session:
            found = write(session, tenant)
    elif kind == "unit":
        found = db.run_in_transaction(lambda session: write(session, tenant), schema=schema)
    elif kind == "rollback":
        with db.session(schema=schema) as session:
            found = write(session, tenant)
    else:
        try:
            with db.transaction(schema=schema) as session:
                fail(session, tenant)
        except Planned:
            with db.session(schema=schema) as session:
                found = seen(session)
    count.note(kind, tenant, found, wrote=kind in ("transaction", "unit"))


async def one_task(db: Registry, count: Count, number: int) -> None:
    """Run one session of a task."""
    tenant = random.randrange(count_of(db))
    schema, kind = f"tenant_{tenant}", KINDS[number % len(KINDS)]
    found: list[int] = []
    if kind == "read_only":
        async with db.async_session(schema=schema, read_only=True) as session:
            found = await session.run_sync(seen)
    elif kind == "transaction":
        async with db.async_transaction(schema=schema) as session:
            found = await session.run_sync(write, tenant)
    elif kind == "unit":

        async def work(session: Any) -> list[int]:
            return list(await session.run_sync(write, tenant))

        found = await db.async_run_in_transaction(work, schema=schema)
    elif kind == "rollback":
        async with db.async_session(schema=schema) as session:
            found = await session.run_sync(write, tenant)
    else:
        try:
            async with db.async_transaction(schema=schema) as session:
                await session.run_sync(fail, tenant)
        except Planned:
            async with db.async_session(schema=schema) as session:
                found = await session.run_sync(seen)
    count.note(kind, tenant, found, wrote=kind in ("transaction", "unit"))


KINDS: Final = ("read_only", "transaction", "unit", "rollback", "failure")
_tenants: dict[int, int] = {}


def count_of(db: Registry) -> int:
    return _tenants[id(db)]


def most_connections(server: PostgreSQLServer, stop: threading.Event) -> Iterator[int]:
    while not stop.wait(0.05):
        yield len(server.connections())


def threads(db: Registry, count: Count, workers: int, sessions: int) -> None:
    numbers = itertools.count()  # its `next` is atomic

    def run() -> None:
        while (number := next(numbers)) < sessions:
            one(db, count, number)

    with ThreadPoolExecutor(workers) as pool:
        for each in [pool.submit(run) for _ in range(workers)]:
            each.result()


def tasks(db: Registry, count: Count, workers: int, sessions: int) -> None:
    async def main() -> None:
        numbers = itertools.count()

        async def run() -> None:
            while (number := next(numbers)) < sessions:
                await one_task(db, count, number)

        await asyncio.gather(*(run() for _ in range(workers)))
        await db.async_dispose()

    asyncio.run(main())


def measure(
    server: PostgreSQLServer,
    tenants: int,
    workers: int,
    sessions: int,
    drive: Callable[[Registry, Count, int, int], None],
) -> dict[str, Any]:
    """Return what so many sessions have seen, and the most connections that the server had."""
    profile = Profile(name="tenants", url=server.url(), pool_size=POOL, max_overflow=0)
    count, stop, peak = Count(), threading.Event(), [0]
    with Registry.from_profile(profile) as db:
        _tenants[id(db)] = tenants
        with db.engine().begin() as connection:
            for number in range(tenants):
                connection.execute(
                    text(
                        f"CREATE SCHEMA tenant_{number} CREATE TABLE {Note.__tablename__} "
                        "(id serial PRIMARY KEY, tenant int NOT NULL)"
                    )
                )
        db.dispose()  # whatever is open from now on is open for the tenants

        def watch() -> None:
            for each in most_connections(server, stop):
                peak[0] = max(peak[0], each)

        watcher = threading.Thread(target=watch)
        watcher.start()
        begun = time.monotonic()
        try:
            drive(db, count, workers, sessions)
        finally:
            stop.set()
            watcher.join()
        spent = time.monotonic() - begun
        missing = 0
        with db.engine().connect() as plain:
            # Without a schema in force, and outside of them: nothing of a tenant stays on a connection.
            path = plain.scalar(text("SHOW search_path"))
            for tenant, rows in count.written.items():
                mapped = plain.execution_options(schema_translate_map={None: f"tenant_{tenant}"})
                own = select(func.count()).select_from(Note).where(col(Note.tenant) == tenant)
                missing += rows != mapped.scalar(own)
    return {
        "sessions": sum(count.sessions.values()),
        "rows of another tenant": count.foreign,
        "tenants whose rows are not those that were committed": missing,
        "most connections": peak[0],
        "pools": f"2 of {POOL}: one that writes, one that reads",
        "search_path afterwards": path,
        "seconds": round(spent, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--sessions", type=int, default=10_000)
    given = parser.parse_args()
    for drive, workers in ((threads, given.threads), (tasks, given.tasks)):
        # 1,000 schemas are 5,000 new files and locks.
        with servers.postgresql(settings={"max_locks_per_transaction": 2000}) as server:
            found = measure(server, given.tenants, workers, given.sessions, drive)
        print(workers, drive.__name__)
        for name, value in found.items():
            print(f"  {name}: {value}")


if __name__ == "__main__":
    main()
