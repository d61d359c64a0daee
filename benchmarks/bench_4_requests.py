"""4. One get per request: over loopback and through a proxy of 1 ms of delay."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sqlalchemy import Engine, text

from benchmarks.engines import no_pool, ours, stock
from benchmarks.harness import in_threads, medians, paired, report, servers
from tests.engine.pool.support import url_of
from tests.support.proxy import Proxy

ROUNDS = 3
THREADS = (1, 4, 16, 64)
GET = text("SELECT n FROM t WHERE n = 1")


def get(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(GET).scalar_one()


def rate(work: Callable[[], None], threads: int, requests: int) -> float:
    each = max(1, requests // threads)

    def run(number: int) -> None:
        for _ in range(each):
            work()

    return each * threads / in_threads(threads, run)


def engine_per_request(url: str) -> None:
    engine = no_pool(url)
    get(engine)
    engine.dispose()


def measure(url: str, threads: int, where: str, kind: str, requests: int) -> None:
    engines = {
        "NullPool": no_pool(url),
        "stock": stock(url),
        "stock + pre-ping": stock(url, pre_ping=True),
        "ours": ours(url),
    }
    runs: dict[str, Callable[[], float]] = {
        name: partial(rate, partial(get, engine), threads, requests // 10 if name == "NullPool" else requests)
        for name, engine in engines.items()
    }
    runs["engine per request"] = partial(rate, partial(engine_per_request, url), threads, max(threads, requests // 30))
    for run in runs.values():
        run()
    results = medians(paired(runs, ROUNDS))
    rows = [
        (name, each, each / results["stock"], each / results["stock + pre-ping"], each / results["engine per request"])
        for name, each in results.items()
    ]
    report(
        f"4. one get per request, {threads} threads, {where}, {kind}",
        ("engine", "requests/s", "to stock", "to stock + pre-ping", "to engine per request"),
        rows,
        "never below stock; at 1 ms ≥ 1.2 × stock + pre-ping; ≥ 5 × engine per request",
    )
    for engine in engines.values():
        engine.dispose()


def main() -> None:
    with servers("postgresql", "mariadb") as running:
        for kind, server in running.items():
            setup = no_pool(url_of(server))
            with setup.begin() as connection:
                connection.execute(text("CREATE TABLE t (n int)"))
                connection.execute(text("INSERT INTO t VALUES (1)"))
            for threads in THREADS:
                measure(url_of(server), threads, "loopback", kind, 2000)
            with Proxy(server.host, server.port) as wire:
                wire.delay(0.0005)  # each way
                for threads in THREADS:
                    measure(url_of(server, wire), threads, "1 ms of delay", kind, 128)


if __name__ == "__main__":
    main()
