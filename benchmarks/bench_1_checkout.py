"""1. Checkout and checkin, uncontended."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from benchmarks.engines import ours, stock
from benchmarks.harness import medians, paired, report, servers
from tests.engine.pool.support import url_of

OPERATIONS = 4000
OFF: dict[str, Any] = {"pool_pre_ping": False, "pool_recycle": -1, "pool_idle_timeout": None, "pool_keepalive": None}
ROUNDS = 21


def loop(take: Callable[[], Any], give: Callable[[Any], Any], operations: int) -> float:
    began = time.perf_counter()
    for _ in range(operations):
        give(take())
    return (time.perf_counter() - began) / operations * 1e6


def _close(connection: Any) -> None:
    connection.close()


def main() -> None:
    with servers("postgresql", "mariadb") as running:
        for kind, server in running.items():
            url = url_of(server)
            engines = {
                "stock": stock(url),
                "stock + pre-ping": stock(url, pre_ping=True),
                "ours, all defaults": ours(url),
                "ours, all off": ours(url, **OFF),
            }
            runs: dict[str, Callable[[], float]] = {
                name: partial(loop, engine.pool.connect, _close, 400 if "pre-ping" in name else OPERATIONS)
                for name, engine in engines.items()
            }
            psycopg = None
            if kind == "postgresql":
                with suppress(ImportError):
                    from psycopg_pool import ConnectionPool

                    plain = url.replace("postgresql+psycopg2", "postgresql")
                    psycopg = ConnectionPool(plain, min_size=5, max_size=15, open=True)
                    psycopg.wait()
                    runs["psycopg_pool"] = partial(loop, psycopg.getconn, psycopg.putconn, OPERATIONS)
            for run in runs.values():
                run()
            result = medians(paired(runs, ROUNDS))
            rows = [(name, us, us / result["stock"]) for name, us in result.items()]
            title = f"1. checkout + checkin, uncontended, {kind}"
            report(title, ("pool", "µs", "ratio to stock"), rows, "ours ≤ 1.0 of stock")
            for engine in engines.values():
                engine.dispose()
            if psycopg is not None:
                psycopg.close()


if __name__ == "__main__":
    main()
