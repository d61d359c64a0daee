"""3. Spike: 5 warm connections, a connect takes 150 ms, 50 callers come at once."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Engine, event, text

from benchmarks.engines import ours, stock
from benchmarks.harness import in_threads, report, servers
from tests.engine.pool.support import url_of

CALLERS = 50
CONNECT = 0.150
ROUNDS = 7


def measure(engine: Engine) -> tuple[float, int]:
    """Return the seconds until all callers are served, and how many connections that has made."""
    connects = [0]

    def slow(dialect: Any, record: Any, arguments: Any, parameters: Any) -> None:
        connects[0] += 1
        time.sleep(CONNECT)

    warm = [engine.connect() for _ in range(5)]
    for connection in warm:
        connection.execute(text("SELECT 1"))
        connection.close()
    event.listen(engine, "do_connect", slow)

    def call(number: int) -> None:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    took = in_threads(CALLERS, call)
    event.remove(engine, "do_connect", slow)
    time.sleep(CONNECT * 2)  # let what is under way end
    made = connects[0]
    engine.dispose()
    return took, made


def main() -> None:
    with servers("postgresql", "mariadb") as running:
        for kind, server in running.items():
            settings: dict[str, Any] = {"pool_size": 50, "max_overflow": 0}
            engines = {"stock": stock(url_of(server), **settings), "ours": ours(url_of(server), **settings)}
            results: dict[str, list[tuple[float, int]]] = {name: [] for name in engines}
            for _ in range(ROUNDS):
                for name, engine in engines.items():
                    results[name].append(measure(engine))
            rows: list[tuple[Any, ...]] = []
            for name, runs in results.items():
                took = sorted(run[0] for run in runs)[ROUNDS // 2]
                made = sorted(run[1] for run in runs)[ROUNDS // 2]
                rows.append((name, took * 1000, made))
            rows = [(*row, row[1] / rows[0][1]) for row in rows]
            report(
                f"3. spike of {CALLERS} callers on 5 warm connections, {kind}",
                ("pool", "all served after ms", "new connections", "ratio to stock"),
                rows,
                "≤ 1/10 of stock's time",
            )


if __name__ == "__main__":
    main()
