"""A bank on each server, whose tellers are threads or tasks, with a network in between that can be made to fail."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from dbconfig import Profile, Registry
from tests.support.bank import Bank, Result
from tests.support.loop_thread import LoopThread
from tests.support.proxy import Proxy
from tests.support.servers import Server


@dataclass
class Place:
    """Where the tellers work: `db` goes through `network`, the audit does not."""

    server: Server
    network: Proxy
    db: Registry
    bank: Bank
    loop: LoopThread | None = None  # in which the units of work run, if they are asynchronous

    def run(self, work: Callable[..., Any]) -> object:
        if self.loop is None:
            return self.db.run_in_transaction(work, attempts=50, timeout=60)

        async def unit(session: AsyncSession) -> object:
            return await session.run_sync(work)

        return self.loop.run(self.db.async_run_in_transaction(unit, attempts=50, timeout=60))


SETTINGS = {"pool_size": 8, "max_overflow": 0, "pool_timeout": "5s", "connect_timeout": "2s"}
# N09: a server that is to let go of locks whose holder has gone silent needs these.
SETTINGS |= {"statement_timeout": "5s", "idle_in_transaction_timeout": "6s"}


# What the tellers work with: threads, and tasks with each asynchronous driver.
DRIVERS = {
    "sync": {"postgresql": None, "mariadb": None},
    "asyncpg, asyncmy": {"postgresql": "postgresql+asyncpg", "mariadb": "mysql+asyncmy"},
    "psycopg, aiomysql": {"postgresql": "postgresql+psycopg", "mariadb": "mysql+aiomysql"},
}


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.slow if name.startswith("psycopg") else ()) for name in DRIVERS]
)
def place(server: Server, proxy: Callable[[Server], Proxy], request: pytest.FixtureRequest) -> Iterator[Place]:
    driver = DRIVERS[request.param][server.kind]
    if driver is not None:
        pytest.importorskip(driver.partition("+")[2])
    network = proxy(server)
    direct = Registry.from_profile(Profile(name="audit", url=server.url()))
    url = server.url(driver, host=network.host, port=network.port)
    with direct, Registry.from_profile(Profile(name="bank", url=url, **SETTINGS)) as db:
        bank = Bank(partial(direct.run_in_transaction, attempts=50, timeout=60))
        if driver is None:
            yield Place(server, network, db, bank)
            network.pass_through()
            return
        loop = LoopThread()
        try:
            yield Place(server, network, db, bank, loop)
            network.pass_through()
            loop.run(db.async_dispose())
        finally:
            loop.close()


def show(request: pytest.FixtureRequest, result: Result) -> None:
    print(f"\n{request.node.name}: {result}")
