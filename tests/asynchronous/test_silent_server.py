"""A server that has fallen silent holds no task up: statements and COMMITs end without it."""

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from dbconfig import Profile, Registry
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
