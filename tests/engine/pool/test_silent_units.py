"""A unit of work waits for a server that is silent, as it does for one that refuses."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from dbconfig import Profile, Registry
from tests.support.proxy import Proxy

from .support import eventually, impatient, through, url_of


def registry_of(server: Any, wire: Proxy, driver: str) -> Registry:
    url = through(wire, url_of(server, driver=driver)).render_as_string(hide_password=False)
    return Registry.from_profile(Profile(name="tests", url=url, connect_timeout="2s"))


def test_a_unit_waits_until_a_silent_server_answers_again(server: Any, proxy: Callable[[Any], Proxy]) -> None:
    wire = proxy(server)
    driver = "postgresql+psycopg2" if server.driver.startswith("postgres") else "mysql+pymysql"
    db = registry_of(server, wire, driver)
    with db.session() as held:
        held.execute(text("SELECT 1"))
        impatient(db.engine(), 0.5)
        wire.swallow()
        done: list[int] = []
        work = threading.Thread(
            target=lambda: done.append(db.run_in_transaction(lambda session: session.scalar(text("SELECT 41 + 1"))))
        )
        work.start()
        assert eventually(lambda: db.stats().timeouts >= 1), "it has met the silence"
        wire.pass_through()
        work.join(30)
        assert done == [42]
    db.dispose()


@pytest.mark.parametrize("driver", ["postgresql+asyncpg", "mysql+aiomysql"])
def test_so_does_an_asynchronous_one(
    request: pytest.FixtureRequest, proxy: Callable[[Any], Proxy], driver: str
) -> None:
    pytest.importorskip(driver.partition("+")[2])
    server = request.getfixturevalue("postgresql" if driver.startswith("postgresql") else "mariadb")
    wire = proxy(server)

    async def main() -> None:
        db = registry_of(server, wire, driver)

        async def unit(session: Any) -> Any:
            return (await session.exec(text("SELECT 41 + 1"))).scalar()

        async with db.async_session() as held:
            await held.exec(text("SELECT 1"))
            impatient(db.async_engine(), 0.5)
            wire.swallow()
            work = asyncio.create_task(db.async_run_in_transaction(unit))
            pool: Any = db.async_engine().pool
            while pool.counters.timeouts < 1:
                await asyncio.sleep(0.01)
            wire.pass_through()
            assert await asyncio.wait_for(work, 30) == 42
        await db.async_dispose()

    asyncio.run(main())
