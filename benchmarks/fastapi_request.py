"""What a request of FastAPI costs: processor time of the whole request, with stock's session and with ours.

    python -m benchmarks.fastapi_request [--requests 60] [--rounds 61] [--only postgresql+asyncpg]

The applications run in this process, called without a socket, and the database server's time does not count. Each
request does one `SELECT 1`. In turns: an endpoint without a session, SQLModel's session on a bare engine as FastAPI's
documentation has it, our dependency, and our dependency with `install(app)`. "one at a time" is the cost of a request;
"60 at once" on ten connections is the same under load, with callers that wait for a connection.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Session, select
from sqlmodel.ext.asyncio.session import AsyncSession

from benchmarks.harness import async_paired, report
from dbconfig import Profile, Registry
from dbconfig.integrations.fastapi import async_session, install
from dbconfig.integrations.fastapi import session as sync_session
from tests.support import servers

SELECT = select(1)
DRIVERS = {
    "postgresql+asyncpg": "postgresql",
    "postgresql+psycopg2": "postgresql",
    "sqlite+aiosqlite": "sqlite",
    "sqlite": "sqlite",
}
ASYNCHRONOUS = ("postgresql+asyncpg", "sqlite+aiosqlite")
SIZES: dict[str, Any] = {"pool_size": 10, "max_overflow": 0, "pool_timeout": 30}
AT_ONCE = {True: 60, False: 20}  # stock needs a thread for each caller that waits, and FastAPI has 40
SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"localhost"), (b"accept", b"*/*")],
    "client": ("127.0.0.1", 50000),
    "server": ("127.0.0.1", 8000),
}


async def call(app: FastAPI) -> None:
    """Make one request, as a server does."""
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    await app({**SCOPE, "state": {}}, receive, send)
    assert status == 200, status


def application(wanted: Any, *, asynchronous: bool) -> FastAPI:
    """Return an application whose endpoint does one query."""
    app = FastAPI()
    if asynchronous:

        @app.get("/")
        async def get(session: wanted) -> int:
            await session.exec(SELECT)
            return 1
    else:

        @app.get("/")
        def get_in_thread(session: wanted) -> int:
            session.exec(SELECT)
            return 1

    return app


def without_session(*, asynchronous: bool) -> FastAPI:
    app = FastAPI()
    if asynchronous:

        @app.get("/")
        async def get() -> int:
            return 1
    else:

        @app.get("/")
        def get_in_thread() -> int:
            return 1

    return app


def stock(url: str, *, asynchronous: bool) -> tuple[FastAPI, Any]:
    if asynchronous:
        engine = create_async_engine(url, **SIZES)

        async def async_plain() -> AsyncIterator[AsyncSession]:
            async with AsyncSession(engine) as session:
                yield session

        return application(Annotated[AsyncSession, Depends(async_plain)], asynchronous=True), engine.dispose
    sync_engine = create_engine(url, **SIZES)

    def plain() -> Iterator[Session]:
        with Session(sync_engine) as session:
            yield session

    return application(Annotated[Session, Depends(plain)], asynchronous=False), partial(
        asyncio.to_thread, sync_engine.dispose
    )


async def measure(app: FastAPI, requests: int, at_once: int) -> float:
    """Return microseconds of processor time per request, in all threads of this process."""

    async def client() -> None:
        for _ in range(requests // at_once):
            await call(app)

    began = time.process_time()
    await asyncio.gather(*(client() for _ in range(at_once)))
    return (time.process_time() - began) / (requests // at_once * at_once) * 1e6


async def compare(driver: str, url: str, requests: int, rounds: int) -> None:
    asynchronous = driver in ASYNCHRONOUS
    async with Registry.from_profile(Profile(name="benchmark", url=url, **SIZES)) as db:
        make = async_session if asynchronous else sync_session
        kind = AsyncSession if asynchronous else Session
        ours = Annotated[kind, make(registry=db)]  # type: ignore[valid-type]  # it is chosen here
        plain, dispose = stock(url, asynchronous=asynchronous)
        installed = application(ours, asynchronous=asynchronous)
        install(installed, registry=db)
        apps = {
            "no session": without_session(asynchronous=asynchronous),
            "stock": plain,
            "ours": application(ours, asynchronous=asynchronous),
            "ours, install(app)": installed,
        }
        for at_once in (1, AT_ONCE[asynchronous]):
            runs = {name: partial(measure, app, requests, at_once) for name, app in apps.items()}
            for app in apps.values():
                await measure(app, max(requests, at_once), at_once)
            found = await async_paired(runs, rounds)
            rows = []
            for name, samples in found.items():
                ratios = [one / base for one, base in zip(samples, found["stock"], strict=True)]
                own = [one - base for one, base in zip(samples, found["no session"], strict=True)]
                rows.append((name, median(samples), median(own), median(ratios), min(samples) / min(found["stock"])))
            how = "one at a time" if at_once == 1 else f"{at_once} at once"
            columns = ("application", "processor µs", "of the session µs", "request : stock", "of minima")
            report(f"FastAPI request, {driver}, {how}", columns, rows, "request ≤ 1.0 × stock")
        await dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=61)
    parser.add_argument("--only", choices=DRIVERS, action="append")
    given = parser.parse_args()
    wanted = given.only or list(DRIVERS)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = None
        if any(DRIVERS[driver] == "postgresql" for driver in wanted):
            server = stack.enter_context(servers.postgresql())
        for driver in wanted:
            if DRIVERS[driver] == "sqlite":
                url = f"{driver}:///{Path(folder) / 'benchmark.sqlite'}"
            else:
                assert server is not None
                url = server.url(driver)
            asyncio.run(compare(driver, url, given.requests, given.rounds))


if __name__ == "__main__":
    main()
