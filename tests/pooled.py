"""Clients of a PgBouncer: each driver, synchronous ones in threads and asynchronous ones in tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from sqlmodel import Session

from dbconfig import Profile, Registry
from tests.registries import at_once
from tests.support.server import Server

Work = Callable[[Session], Any]


@dataclass(frozen=True)
class Job:
    """One client: so many sessions one after the other, in each of which the work is done."""

    db: Registry
    work: Work
    how: dict[str, bool]
    sessions: int = 1


@dataclass(frozen=True)
class Kind:
    """A driver and how it is used."""

    driver: str
    asynchronous: bool = False

    def __str__(self) -> str:
        return f"{self.driver}{' async' if self.asynchronous else ''}"

    @contextmanager
    def registries(self, server: Server, port: int) -> Iterator[Callable[..., Registry]]:
        """Yield what opens registries on a server that is reached through a port."""
        pytest.importorskip(self.driver)
        url = server.url(f"postgresql+{self.driver}", port=port)
        with ExitStack() as stack:
            yield lambda **settings: stack.enter_context(
                Registry.from_profile(Profile(name="pooled", url=url, pgbouncer=True, **settings))
            )

    def run(self, db: Registry, work: Work, **how: bool) -> Any:
        """Return what the work returns in one session."""
        return self.at_once([Job(db, work, how)])[0][0]

    def at_once(self, jobs: list[Job]) -> list[list[Any]]:
        """Let the clients work side by side; return what each of their sessions returned."""
        if self.asynchronous:
            return asyncio.run(_in_tasks(jobs))
        return at_once([partial(_in_thread, job) for job in jobs])


def _in_thread(job: Job) -> list[Any]:
    found = []
    for _ in range(job.sessions):
        with job.db.session(**job.how) as session:
            found.append(job.work(session))
    return found


async def _in_tasks(jobs: list[Job]) -> list[list[Any]]:
    async def client(job: Job) -> list[Any]:
        found = []
        for _ in range(job.sessions):
            async with job.db.async_session(**job.how) as session:
                found.append(await session.run_sync(job.work))
        return found

    try:
        return list(await asyncio.gather(*(client(job) for job in jobs)))
    finally:
        for db in {id(job.db): job.db for job in jobs}.values():
            await db.async_dispose()


KINDS = (Kind("psycopg2"), Kind("psycopg"), Kind("psycopg", asynchronous=True), Kind("asyncpg", asynchronous=True))
