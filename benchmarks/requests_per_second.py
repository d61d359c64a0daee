"""Requests per second and their slowest hundredth, with threads and a network that takes its time.

Each round runs all alternatives in turn; what is shown is the median of the rounds' own ratios to stock with pre-ping.
python -m benchmarks.requests_per_second [SECONDS [ROUNDS]]
"""

import random
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from typing import Any

from sqlmodel import Field, MetaData, Session, SQLModel, create_engine

from benchmarks.network import delayed
from benchmarks.tables import show
from dbconfig import Profile, Registry
from tests.support import servers
from tests.support.server import Server

DELAYS = (0.0, 0.001, 0.005)  # seconds, there and back
THREADS = (1, 4, 16, 64)
BASE = "stock + pre-ping"


class Base(SQLModel):
    metadata = MetaData()


class Item(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    value: int = 0


Work = Callable[[], None]


def get(open_session: Callable[[], Session]) -> Work:
    def work() -> None:
        with open_session() as session:
            session.get_one(Item, 1)

    return work


def add(open_session: Callable[[], Session]) -> Work:
    def work() -> None:
        with open_session() as session:
            session.add(Item())
            session.commit()

    return work


def run(work: Work, threads: int, seconds: float) -> tuple[float, float, float]:
    """Return requests per second, the 99th of a hundred latencies and the longest one, in seconds."""
    took: list[list[float]] = [[] for _ in range(threads)]
    errors: list[BaseException] = []
    start = threading.Barrier(threads)

    def loop(mine: list[float]) -> None:
        try:
            start.wait()
            end = time.perf_counter() + seconds
            while (begin := time.perf_counter()) < end:
                work()
                mine.append(time.perf_counter() - begin)
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=loop, args=(mine,)) for mine in took]
    begin = time.perf_counter()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    elapsed = time.perf_counter() - begin
    if errors:
        raise errors[0]
    found = sorted(each for mine in took for each in mine)
    return len(found) / elapsed, found[int(len(found) * 0.99)], found[-1]


def alternatives(stack: ExitStack, url: str, driver: str, **pool: Any) -> dict[str, Work]:
    """Return what is compared: by kind of request, SQLAlchemy's own and ours."""
    plain = create_engine(url, **pool)
    pinged = create_engine(url, pool_pre_ping=True, **pool)
    stack.callback(plain.dispose)
    stack.callback(pinged.dispose)
    ours = stack.enter_context(Registry.from_profile(Profile(name="bench", url=url, **pool)))
    found = {
        f"get: {BASE}": get(lambda: Session(pinged)),
        "get: stock": get(lambda: Session(plain)),
        "get: ours": get(ours.session),
        "get: ours, read only": get(lambda: ours.session(read_only=True)),
        f"add: {BASE}": add(lambda: Session(pinged)),
        "add: stock": add(lambda: Session(plain)),
        "add: ours": add(ours.session),
    }
    if driver == "postgresql":
        fast = stack.enter_context(Registry.from_profile(Profile(name="bench", url=url, fast_begin=True, **pool)))
        found |= {"get: ours, fast_begin": get(fast.session), "add: ours, fast_begin": add(fast.session)}
    return found


def compare(works: dict[str, Work], threads: int, seconds: float, rounds: int) -> list[list[object]]:
    samples: dict[str, list[tuple[float, float, float]]] = {name: [] for name in works}
    for work in works.values():
        run(work, threads, seconds / 3)
    for _ in range(rounds):
        for name in random.sample(list(works), len(works)):
            samples[name].append(run(works[name], threads, seconds))
    rows: list[list[object]] = []
    for name in sorted(samples):
        base = samples[f"{name.partition(':')[0]}: {BASE}"]
        pairs = list(zip(samples[name], base, strict=True))
        rows.append(
            [
                name,
                round(median(one[0] for one, _ in pairs)),
                median(one[0] / other[0] for one, other in pairs),
                round(median(one[1] for one, _ in pairs) * 1000, 2),
                median(other[1] / one[1] for one, other in pairs),
                round(max(one[2] for one, _ in pairs) * 1000, 1),
            ]
        )
    return rows


COLUMNS = ["request", "requests/s", "x stock + pre-ping", "p99 ms", "p99, times shorter", "longest ms"]


def pool_of(threads: int) -> dict[str, int]:
    return {"pool_size": threads, "max_overflow": 0}


def prepare(server: Server) -> None:
    engine = create_engine(server.url("mysql+pymysql" if server.driver == "mysql" else "postgresql+psycopg2"))
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Item())
        session.commit()
    engine.dispose()


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 0.5
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    # Each alternative keeps its connections.
    with (
        servers.postgresql(settings={"max_connections": 600}) as postgresql,
        servers.mariadb(settings={"max-connections": 600}) as mariadb,
    ):
        for server, driver in ((postgresql, "postgresql+psycopg2"), (mariadb, "mysql+pymysql")):
            prepare(server)
            for delay in DELAYS:
                with delayed(server.host, server.port, delay) as port:
                    url = server.url(driver, port=port)
                    for threads in THREADS:
                        with ExitStack() as stack:
                            works = alternatives(stack, url, server.driver, **pool_of(threads))
                            rows = compare(works, threads, seconds, rounds)
                        show(f"{driver}, {delay * 1000:g} ms, {threads} threads", COLUMNS, rows)
                    if delay == DELAYS[-1]:
                        with ExitStack() as stack:
                            works = alternatives(stack, url, server.driver, pool_size=8, max_overflow=0)
                            rows = compare(works, 32, seconds * 2, rounds)
                        show(f"{driver}, {delay * 1000:g} ms, 32 threads on 8 connections", COLUMNS, rows)


if __name__ == "__main__":
    main()
