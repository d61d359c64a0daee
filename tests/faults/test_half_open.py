"""Half-open networks: acquiring, pinging and asking end within their own limits, on every driver."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from dbconfig import Profile, Registry
from dbconfig.engine.pool import statement_limit
from dbconfig.engine.pool.ping import PING_LIMIT
from tests.support.proxy import Proxy
from tests.support.servers import Server

DRIVERS = (
    pytest.param("postgresql", "postgresql+psycopg2", id="psycopg2"),
    pytest.param("postgresql", "postgresql+psycopg", id="psycopg"),
    pytest.param("mariadb", "mysql+pymysql", id="pymysql"),
)
WAYS = ("the server stands still", "the path swallows everything")
GRACE = 1.0  # seconds; less than guard.GRACE, to save time
ROOM = 2.0  # seconds for a busy machine
SETTINGS = {"pool_size": 2, "max_overflow": 0, "pool_timeout": "3s", "connect_timeout": "2s", "statement_timeout": "1s"}

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture
def silenced(
    request: pytest.FixtureRequest,
    proxy: Callable[[Server], Proxy],
    kind: str,
    driver: str,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Registry, Callable[[], None]]]:
    pytest.importorskip(driver.partition("+")[2])
    monkeypatch.setattr(statement_limit, "GRACE", GRACE)
    server: Server = request.getfixturevalue(kind)
    network = proxy(server)
    url = server.url(driver, host=network.host, port=network.port)

    def silence() -> None:
        server.pause() if way == WAYS[0] else network.swallow()

    with Registry.from_profile(Profile(name="half-open", url=url, **SETTINGS)) as db:
        yield db, silence
        network.pass_through()
        server.heal()
        network.cut()


def timed(call: Callable[[], Any]) -> float:
    start = time.monotonic()
    with pytest.raises(SQLAlchemyError):
        call()
    return time.monotonic() - start


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("kind", "driver"), DRIVERS)
def test_each_limit_holds(
    silenced: tuple[Registry, Callable[[], None]], request: pytest.FixtureRequest, driver: str, way: str
) -> None:
    db, silence = silenced
    engine = db.engine()
    with engine.connect() as one, engine.connect() as two:  # one to ask on, one to rest
        one.execute(text("SELECT 1"))
        two.execute(text("SELECT 1"))
        two.close()
        silence()
        query = timed(lambda: one.execute(text("SELECT 2")))
        one.invalidate()
    acquire = timed(engine.connect)
    engine.dispose()
    connect = timed(engine.connect)
    print(
        f"\n{request.node.callspec.id}: query {query:.2f} s (statement_timeout 1 s + {GRACE:g} s), "
        f"checkout with a connection at rest {acquire:.2f} s (pool_timeout 3 s, ping {PING_LIMIT:g} s), "
        f"first connect {connect:.2f} s (connect_timeout 2 s)"
    )
    assert query < 1 + GRACE + ROOM
    assert acquire < 3 + ROOM
    assert connect < 2 + ROOM
