"""Round trips per request, counted on the wire: for each driver, SQLAlchemy's own and ours."""

import asyncio
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from sqlmodel import Field, MetaData, Session, SQLModel, create_engine

from benchmarks.tables import show
from dbconfig import Profile, Registry
from tests.support import servers
from tests.support.proxy import Proxy
from tests.support.servers import Server

WARM_UP = 12  # the first connection looks at the server; psycopg prepares a statement that it has seen five times
TIMES = 20


class Base(SQLModel):
    metadata = MetaData()


class Item(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    value: int = 0


def get(session: Session) -> None:
    session.get_one(Item, 1)


def three_gets(session: Session) -> None:
    for number in (1, 2, 3):
        session.get_one(Item, number)


def add(session: Session) -> None:
    session.add(Item())
    session.commit()


def add_and_refresh(session: Session) -> None:
    item = Item()
    session.add(item)
    session.commit()
    session.refresh(item)


def update(session: Session) -> None:
    session.get_one(Item, 1).value += 1
    session.commit()


Work = Callable[[Session], None]
READS: dict[str, Work] = {"get": get, "three gets": three_gets}
WORKS: dict[str, Work] = {**READS, "add + commit": add, "add + commit + refresh": add_and_refresh, "update": update}


def count(network: Proxy, open_session: Callable[[], Session], work: Callable[[Session], None]) -> float:
    for turn in range(WARM_UP + TIMES):
        if turn == WARM_UP:
            network.reset_counters()
        with open_session() as session:
            work(session)
    return network.round_trips() / TIMES


def stock(network: Proxy, url: str, **options: Any) -> list[float | str]:
    engine = create_engine(url, **options)
    found: list[float | str] = [count(network, lambda: Session(engine), work) for work in WORKS.values()]
    engine.dispose()
    return found


def ours(network: Proxy, url: str, *, read_only: bool = False, **settings: Any) -> list[float | str]:
    with Registry.from_profile(Profile(name="trips", url=url, **settings)) as db:
        return [
            count(network, lambda: db.session(read_only=read_only), work) if name in READS or not read_only else "–"
            for name, work in WORKS.items()
        ]


def synchronous(server: Server, driver: str) -> list[list[object]]:
    with Proxy(server.host, server.port) as network:
        url = server.url(driver, port=network.port)
        rows: list[list[object]] = [
            [driver, "stock", *stock(network, url)],
            [driver, "stock + pre-ping", *stock(network, url, pool_pre_ping=True)],
            [driver, "ours", *ours(network, url)],
        ]
        if driver == "postgresql+psycopg2":
            rows.append([driver, "ours, fast_begin", *ours(network, url, fast_begin=True)])
        rows.append([driver, "ours, read only", *ours(network, url, read_only=True)])
        return rows


async def asynchronous(server: Server, driver: str) -> list[list[object]]:
    from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
    from sqlmodel.ext.asyncio.session import AsyncSession

    async def run(open_session: Callable[[], AsyncSession], works: dict[str, Work] = WORKS) -> list[float | str]:
        found: list[float | str] = []
        for name in WORKS:
            for turn in range(WARM_UP + TIMES):
                if turn == WARM_UP:
                    network.reset_counters()
                if name in works:
                    async with open_session() as session:
                        await session.run_sync(works[name])
            found.append(network.round_trips() / TIMES if name in works else "–")
        return found

    async def stock(engine: AsyncEngine) -> list[float | str]:
        found = await run(lambda: AsyncSession(engine, expire_on_commit=False))
        await engine.dispose()
        return found

    with Proxy(server.host, server.port) as network:
        url = server.url(driver, port=network.port)
        rows: list[list[object]] = [
            [driver, "stock", *await stock(create_async_engine(url))],
            [driver, "stock + pre-ping", *await stock(create_async_engine(url, pool_pre_ping=True))],
        ]
        async with Registry.from_profile(Profile(name="trips", url=url)) as db:
            rows.append([driver, "ours", *await run(db.async_session)])
            rows.append([driver, "ours, read only", *await run(lambda: db.async_session(read_only=True), READS)])
        return rows


def main() -> None:
    rows: list[list[object]] = []
    with servers.postgresql() as postgresql, servers.mariadb() as mariadb:
        for server in (postgresql, mariadb):
            with Registry.from_profile(Profile(name="trips", url=server.url())) as db:
                Base.metadata.create_all(db.engine())
                with db.transaction() as session:
                    session.add_all(Item(id=number) for number in (1, 2, 3))
            if server is postgresql:
                server.sql("SELECT setval('item_id_seq', 100)")
        rows += synchronous(postgresql, "postgresql+psycopg2")
        if find_spec("psycopg"):
            rows += synchronous(postgresql, "postgresql+psycopg")
        rows += synchronous(mariadb, "mysql+pymysql")
        for server, module, driver in (
            (postgresql, "asyncpg", "postgresql+asyncpg"),
            (postgresql, "psycopg", "postgresql+psycopg"),
            (mariadb, "aiomysql", "mysql+aiomysql"),
            (mariadb, "asyncmy", "mysql+asyncmy"),
        ):
            if find_spec(module):
                found = asyncio.run(asynchronous(server, driver))
                rows += [[f"{row[0]} (async)", *row[1:]] for row in found]
    show("Round trips per request", ["driver", "engine", *WORKS], rows, "Counted by a proxy, mean of 20 requests.")


if __name__ == "__main__":
    main()
