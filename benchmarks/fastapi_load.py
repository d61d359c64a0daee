"""Load on examples/fastapi_app, from a second process: ours, a bare global engine, an engine for each request.

    python benchmarks/fastapi_load.py [--seconds 4] [--database postgresql|mariadb] [--slow-query]

The same application runs three times, with another source of sessions each time, on a private server. Each time a
client in a process of its own reads and writes over kept connections: first with fewer clients than the pool has
connections (speed), then with ten times as many (what happens when there is not enough). All of it on the loopback
interface, and bounded.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.harness import report  # noqa: E402
from tests.support import servers  # noqa: E402
from tests.support.ports import free_port  # noqa: E402

CONNECTIONS = 10  # pool_size + max_overflow of the example's profiles
MOST_REQUESTS = 20_000  # of one client run
VARIANTS = ("dbconfig", "global engine", "engine per request")

# Laid beside the example; what is overridden is where a session comes from, nothing else.
LAUNCH = """
import os
from sqlalchemy import create_engine
from sqlmodel import Session
from app.main import app
from dbconfig import db
from dbconfig.integrations.fastapi import SessionDep, TransactionDep

variant, url = os.environ["VARIANT"], os.environ["DRIVER_URL"]
kept = None

def engine():
    global kept
    if variant == "engine per request":
        return create_engine(url)
    kept = kept or create_engine(url, pool_size=5, max_overflow=5, pool_timeout=2)
    return kept

def plain():
    with Session(engine()) as session:
        yield session

def committing():
    with Session(engine()) as session, session.begin():
        yield session

if variant != "dbconfig":
    for dependency, source in ((SessionDep, plain), (TransactionDep, committing)):
        app.dependency_overrides[dependency.__metadata__[0].dependency] = source
    db.session = lambda: Session(engine())
"""


# `--slow-query`: one query of 5 ms per request, on ten connections, and nothing else.
SLOW_QUERY = """
import os
from contextlib import asynccontextmanager
from typing import Annotated, Any
from fastapi import Depends, FastAPI
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

variant, url, kind = os.environ["VARIANT"], os.environ["DRIVER_URL"], os.environ["KIND"]
SLEEP = text("SELECT pg_sleep(0.005)" if url.startswith("postgresql") else "SELECT SLEEP(0.005)")
sizes = {"pool_size": 10, "max_overflow": 0, "pool_timeout": 30}
if variant == "dbconfig":
    from dbconfig.integrations.fastapi import AsyncSessionDep, SessionDep, install, lifespan
    app = FastAPI(lifespan=lifespan)
    install(app)
    Wanted, AsyncWanted = SessionDep, AsyncSessionDep if kind == "async" else None
else:
    app, made = FastAPI(), []

    def engine():
        if not made:
            make = create_async_engine if kind == "async" else create_engine
            made.append(make(url, pool_pre_ping=variant.endswith("pre-ping"), **sizes))
        return made[0]

    def plain():
        with Session(engine()) as session:
            yield session

    async def async_plain():
        async with AsyncSession(engine()) as session:
            yield session

    Wanted, AsyncWanted = Annotated[Session, Depends(plain)], Annotated[AsyncSession, Depends(async_plain)]

if kind == "async":
    @app.get("/")
    async def get(session: AsyncWanted) -> int:
        await session.exec(SLEEP)
        return 1
else:
    @app.get("/")
    def get(session: Wanted) -> int:
        session.exec(SLEEP)
        return 1
"""
SLOW_PROFILE = "url: ${{DRIVER_URL}}\npool_size: {size}\nmax_overflow: 0\npool_timeout: 30s\n"
SLOW_VARIANTS = ("SQLAlchemy", "SQLAlchemy, pre-ping", "dbconfig")
SLOW_DRIVERS = {
    "postgresql": {"async": "postgresql+asyncpg", "sync": "postgresql+psycopg2"},
    "mariadb": {"async": "mysql+asyncmy", "sync": "mysql+pymysql"},
}
SLOW_CLIENTS = (20, 200)
SLOW_ROUNDS = 3


def slow_query(server: servers.Server, drivers: dict[str, str], seconds: float) -> None:
    """Let clients ask at once for what takes 5 ms, of each variant in turn."""
    for kind, drivername in drivers.items():
        for clients in SLOW_CLIENTS:
            found: dict[str, list[dict[str, float]]] = {name: [] for name in SLOW_VARIANTS}
            for turn in range(SLOW_ROUNDS):
                for variant in SLOW_VARIANTS[turn:] + SLOW_VARIANTS[:turn]:
                    found[variant].append(slow_run(variant, kind, server.url(drivername), clients, seconds))
            rows = []
            for variant, runs in found.items():
                names = ("rate", "p50", "p99", "worst", "errors")
                rows.append((variant, *(median(run[name] for run in runs) for name in names)))
            rows = [(*row, row[1] / rows[0][1], row[3] / rows[0][3], row[4] / rows[0][4]) for row in rows]
            report(
                f"9. FastAPI, {clients} clients on 10 connections, queries of 5 ms, {kind}, {drivername}",
                ("with", "req/s", "p50 ms", "p99 ms", "worst ms", "errors", "req/s : stock", "p99 : stock", "worst"),
                rows,
                "requests per second ≥ stock; p99 and worst ≤ 1/2 of stock",
            )


def slow_run(variant: str, kind: str, url: str, clients: int, seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "launch.py").write_text(SLOW_QUERY)
        config = Path(folder) / "config"
        config.mkdir()
        (config / "benchmark.yaml").write_text(SLOW_PROFILE.format(size=10))
        port = free_port()
        environ = {**os.environ, "ENVIRONMENT": "benchmark", "VARIANT": variant, "DRIVER_URL": url, "KIND": kind}
        command = [sys.executable, "-m", "uvicorn", "--log-level", "critical", "--port", str(port), "launch:app"]
        process = subprocess.Popen(command, cwd=folder, env=environ)
        try:
            asyncio.run(answers(port))
            client = [sys.executable, __file__, "--seconds", str(seconds), "--client", str(port), "", str(clients)]
            done = subprocess.run(client, capture_output=True, text=True, check=True)
            return dict(json.loads(done.stdout))
        finally:
            process.terminate()
            process.wait(20)


async def answers(port: int) -> None:
    """Wait until a server is up, and has a connection."""
    end = time.monotonic() + 60
    while True:
        try:
            client = await Client.open(port)
            code, _ = await client.call("GET", "/")
            client.close()
            if code == 200:
                return
        except OSError:
            pass
        assert time.monotonic() < end, "the application does not answer"
        await asyncio.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--database", choices=("postgresql", "mariadb"), default="postgresql")
    parser.add_argument("--client", nargs=3, help=argparse.SUPPRESS)  # the second process: port, token, clients
    parser.add_argument("--slow-query", action="store_true", help="20 and 200 clients, one query of 5 ms a request")
    given = parser.parse_args()
    if given.client:
        port, token, clients = given.client
        print(json.dumps(asyncio.run(load(int(port), token, int(clients), given.seconds))))
        return
    if given.slow_query:
        drivers = SLOW_DRIVERS[given.database]
        start = servers.postgresql if given.database == "postgresql" else servers.mariadb
        with start() as server:
            slow_query(server, drivers, given.seconds)
        return
    start = servers.postgresql if given.database == "postgresql" else servers.mariadb
    print(f"{given.database}, one worker, {CONNECTIONS} connections, {os.cpu_count()} cores; reads and writes\n")
    names = ("clients", "req/s", "p50 ms", "p99 ms", "200s", "503s", "errors")
    print(f"{'':20} {' '.join(f'{name:>7}' for name in names)}  served per client")
    with start() as server:
        for variant in VARIANTS:
            with server.fresh_database():
                run(variant, server, given.database, given.seconds)


def run(variant: str, server: servers.Server, system: str, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "app"
        shutil.copytree(ROOT / "examples/fastapi_app", place, ignore=shutil.ignore_patterns("data", "__pycache__"))
        (place / "launch.py").write_text(LAUNCH)
        driver = {"postgresql": "postgresql+psycopg2", "mariadb": "mysql+pymysql"}[system]
        environ = {
            **os.environ,
            "ENVIRONMENT": system,
            {"postgresql": "POSTGRES_URL", "mariadb": "MARIADB_URL"}[system]: server.url(),
            "VARIANT": variant,
            "DRIVER_URL": server.url(driver),
            "PASSWORD_ROUNDS": "10",
        }
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "--log-level", "critical", "--port", str(port), "launch:app"]
        process = subprocess.Popen(command, cwd=place, env=environ, stderr=subprocess.DEVNULL)
        try:
            token = asyncio.run(log_in(port))
            for clients in (CONNECTIONS - 2, CONNECTIONS * 10):
                client = [
                    sys.executable,
                    __file__,
                    "--seconds",
                    str(seconds),
                    "--client",
                    str(port),
                    token,
                    str(clients),
                ]
                found = json.loads(subprocess.run(client, capture_output=True, text=True, check=True).stdout)
                print(
                    f"{variant:20} {clients:7} {found['rate']:7.0f} {found['p50']:7.1f} {found['p99']:7.1f} "
                    f"{found['good']:7} {found['busy']:7} {found['errors']:7}  {found['least']}..{found['most']}"
                )
        finally:
            process.terminate()
            process.wait(20)


async def log_in(port: int) -> str:
    account = {"email": "ada@example.org", "password": "correct horse"}
    end = time.monotonic() + 30
    while True:
        try:
            client = await Client.open(port)
            break
        except OSError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.05)
    await client.call("POST", "/users", account)
    _, body = await client.call("POST", "/login", account)
    client.close()
    return str(json.loads(body)["access_token"])


class Client:
    """One kept connection that speaks as much of HTTP/1.1 as the server answers with."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> "Client":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def call(self, method: str, path: str, body: object = None, token: str = "") -> tuple[int, bytes]:
        data = json.dumps(body).encode() if body is not None else b""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        )
        head += f"Authorization: Bearer {token}\r\n\r\n" if token else "\r\n"
        self._writer.write(head.encode() + data)
        header = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(header.partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        return int(header[9:12]), await self._reader.readexactly(length)

    def close(self) -> None:
        self._writer.close()


async def load(port: int, token: str, clients: int, seconds: float) -> dict[str, float]:
    end = time.monotonic() + seconds
    times: list[float] = []
    codes: dict[int, int] = {}
    served = [0] * clients

    async def one(number: int) -> None:
        client = await Client.open(port)
        turn = number
        while time.monotonic() < end and len(times) < MOST_REQUESTS:
            turn += 1
            started = time.monotonic()
            try:
                if not token:
                    code, _ = await client.call("GET", "/")
                elif turn % 2:
                    code, _ = await client.call("GET", "/items?limit=5", None, token)
                else:
                    code, _ = await client.call("POST", "/items", {"title": "engine"}, token)
            except (OSError, asyncio.IncompleteReadError):
                code, client = 0, await Client.open(port)
            times.append(time.monotonic() - started)
            codes[code] = codes.get(code, 0) + 1
            served[number] += code in (200, 201)
        client.close()

    started = time.monotonic()
    await asyncio.gather(*(one(number) for number in range(clients)))
    cuts = quantiles(times, n=100)
    good = codes.get(200, 0) + codes.get(201, 0)
    return {
        "rate": good / (time.monotonic() - started),
        "p50": cuts[49] * 1000,
        "p99": cuts[98] * 1000,
        "worst": max(times) * 1000,
        "good": good,
        "busy": codes.get(503, 0),
        "errors": sum(count for code, count in codes.items() if code not in (200, 201, 503)),
        "least": min(served),
        "most": max(served),
    }


if __name__ == "__main__":
    main()
