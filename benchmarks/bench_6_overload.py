"""6. Twice as many requests as the pool can serve, with and without pool_max_waiting."""

from __future__ import annotations

import threading
import time
from typing import Any

from sqlalchemy import Engine, exc, text

from benchmarks.engines import ours, stock
from benchmarks.harness import percentile, report, servers
from tests.engine.pool.support import url_of

CONNECTIONS = 10
SERVICE = 0.05  # seconds a request holds its connection: 200 requests/s at most
ARRIVALS = 2 * CONNECTIONS / SERVICE
SECONDS = 5.0
USEFUL = 1.0  # an answer that comes later than this helps nobody


def measure(engine: Engine) -> tuple[int, int, float, float, float]:
    """Return requests, useful answers, p50 and p99 of the answers in ms, and the seconds until the last is done."""
    answers: list[float] = []
    threads: list[threading.Thread] = []

    def request() -> None:
        asked = time.perf_counter()
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
                time.sleep(SERVICE)
        except exc.TimeoutError:
            return
        answers.append(time.perf_counter() - asked)

    began = time.perf_counter()
    for number in range(int(ARRIVALS * SECONDS)):
        pause = began + number / ARRIVALS - time.perf_counter()
        if pause > 0:
            time.sleep(pause)
        thread = threading.Thread(target=request)
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    useful = sum(answer <= USEFUL for answer in answers)
    return len(threads), useful, percentile(answers, 0.5) * 1000, percentile(answers, 0.99) * 1000, took


def main() -> None:
    with servers("postgresql") as running:
        server = running["postgresql"]
        settings: dict[str, Any] = {"pool_size": CONNECTIONS, "max_overflow": 0, "pool_timeout": 30.0}
        url = url_of(server)
        contenders = {
            "stock": stock(url, **settings),
            "ours": ours(url, **settings),
            "ours, pool_max_waiting 50": ours(url, pool_max_waiting=50, **settings),
            "ours, pool_max_waiting 100": ours(url, pool_max_waiting=100, **settings),
        }
        rows = []
        for name, engine in contenders.items():
            rows.append((name, *measure(engine)))
            engine.dispose()
        report(
            f"6. overload: {ARRIVALS:.0f} requests/s for {SECONDS:.0f} s, capacity {CONNECTIONS / SERVICE:.0f}/s",
            ("pool", "requests", f"answered within {USEFUL:.0f} s", "p50 ms", "p99 ms", "drained after s"),
            rows,
        )


if __name__ == "__main__":
    main()
