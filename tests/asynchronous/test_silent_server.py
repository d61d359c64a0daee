"""A server that has fallen silent holds no task up: statements and COMMITs end without it."""

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from dbconfig import Profile, Registry
from dbconfig.engine import connection_failures
from dbconfig.engine.pool import statement_limit
from tests.asynchronous.conftest import DRIVERS
from tests.support.proxy import Proxy
from tests.support.servers import Server

SERVED = [name for name, (system, *_) in DRIVERS.items() if system != "sqlite"]


@pytest.mark.server
@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("what", ["statement", "commit"])
def test_what_waits_for_a_silent_server_ends(
    name: str,
    what: str,
    request: pytest.FixtureRequest,
    proxy: Callable[[Server], Proxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system, drivername, module = DRIVERS[name]
    pytest.importorskip(module)
    monkeypatch.setattr(statement_limit, "GRACE", 0.5)
    server = request.getfixturevalue(system)
    network = proxy(server)
    url = server.url(drivername, port=network.port)

    async def main() -> None:
        async with Registry.from_profile(Profile(name="silent", url=url, statement_timeout=1)) as db:
            async with db.async_session() as session:
                await session.scalar(text("SELECT 1"))
                network.swallow()
                with pytest.raises(DBAPIError):
                    await asyncio.wait_for(
                        session.commit() if what == "commit" else session.scalar(text("SELECT 2")), 20
                    )
                network.pass_through()
                network.cut()
            async with db.async_session() as session:
                assert await session.scalar(text("SELECT 3")) == 3

    asyncio.run(main())


@pytest.mark.server
@pytest.mark.parametrize("name", ["sync", *SERVED])
def test_a_ping_that_is_not_answered_leads_to_no_further_question(
    name: str, request: pytest.FixtureRequest, proxy: Callable[[Server], Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed connect is explained, for which PostgreSQL is asked again; a caller in the pool has no time for that."""
    system, drivername, module = DRIVERS.get(name, ("postgresql", "postgresql+psycopg2", "psycopg2"))
    pytest.importorskip(module)
    server = request.getfixturevalue(system)
    network = proxy(server)
    url = server.url(drivername, port=network.port)
    settings = {"pool_timeout": 1, "pool_pre_ping": True, "connect_timeout": 60}
    explained: list[BaseException] = []
    annotate = connection_failures.annotate

    def note(error: BaseException, settings: object) -> None:
        explained.append(error)
        annotate(error, settings)  # type: ignore[arg-type]

    monkeypatch.setattr(connection_failures, "annotate", note)

    async def main(db: Registry) -> None:
        async with db.async_session() as session:
            await session.scalar(text("SELECT 1"))
        network.swallow()
        async with db.async_session() as session:
            with pytest.raises((SQLAlchemyError, OSError)):
                await session.scalar(text("SELECT 2"))
        assert explained == []
        network.pass_through()
        network.cut()
        await db.async_dispose()

    with Registry.from_profile(Profile(name="silent", url=url, **settings)) as db:
        if name != "sync":
            asyncio.run(main(db))
            return
        with db.session() as session:
            session.execute(text("SELECT 1"))
        network.swallow()
        with db.session() as session, pytest.raises(SQLAlchemyError):
            session.execute(text("SELECT 2"))
        assert explained == []
        network.pass_through()
        network.cut()
