"""2. Fairness: 20 threads on 2 connections, each checkout runs one statement."""

from __future__ import annotations

import threading
import time
from typing import Any

from sqlalchemy import Engine, text

from benchmarks.engines import ours, stock
from benchmarks.harness import in_threads, report, servers
from tests.engine.pool.support import url_of

THREADS = 20
SECONDS = 3.0
ROUNDS = 5


def measure(engine: Engine) -> tuple[int, int, float, float]:
    """Return the fewest and the most checkouts of a thread, the worst wait in seconds, and checkouts per second."""
    counts, worst = [0] * THREADS, [0.0] * THREADS
    stop = threading.Event()

    def work(number: int) -> None:
        while not stop.is_set():
            asked = time.perf_counter()
            with engine.connect() as connection:
                worst[number] = max(worst[number], time.perf_counter() - asked)
                connection.execute(text("SELECT 1"))
            counts[number] += 1

    timer = threading.Timer(SECONDS, stop.set)
    timer.start()
    took = in_threads(THREADS, work)
    return min(counts), max(counts), max(worst), sum(counts) / took


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def main() -> None:
    with servers("postgresql", "mariadb") as running:
        for kind, server in running.items():
            settings: dict[str, Any] = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 60.0}
            engines = {"stock": stock(url_of(server), **settings), "ours": ours(url_of(server), **settings)}
            results: dict[str, list[tuple[int, int, float, float]]] = {name: [] for name in engines}
            for _ in range(ROUNDS):
                for name, engine in engines.items():
                    results[name].append(measure(engine))
            rows: list[tuple[Any, ...]] = []
            for name, runs in results.items():
                fewest, most, worst, rate = (median([float(run[i]) for run in runs]) for i in range(4))
                share = median([run[0] / run[1] for run in runs])
                rows.append((name, int(fewest), int(most), share, worst * 1000, rate))
            rows = [(*row, row[4] / rows[0][4], row[5] / rows[0][5]) for row in rows]
            columns = (
                "pool",
                "fewest",
                "most",
                "min/max",
                "worst wait ms",
                "checkouts/s",
                "wait : stock",
                "rate : stock",
            )
            report(
                f"2. fairness, 20 threads on 2 connections, {kind}",
                columns,
                rows,
                "min/max ≥ 0.9, worst wait ≤ 1/50 of stock, throughput ≥ 0.95",
            )
            for engine in engines.values():
                engine.dispose()


if __name__ == "__main__":
    main()
