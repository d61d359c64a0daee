"""8. The server restarts, one second down, under 16 busy threads: errors that callers saw, by phase."""

from __future__ import annotations

import threading
import time
from typing import Any

from sqlalchemy import Engine, text

from benchmarks.engines import ours, stock
from benchmarks.harness import report, servers
from tests.engine.pool.support import url_of

THREADS = 16
DOWN = 1.0


def measure(engine: Engine, server: Any) -> tuple[int, int, int, float]:
    """Return acquisitions that failed, statements that failed, errors after the first success, and seconds to it."""
    stop = threading.Event()
    lock = threading.Lock()
    failed: list[tuple[float, str]] = []
    done: list[float] = []

    def work() -> None:
        while not stop.is_set():
            stage = "connect"
            try:
                with engine.connect() as connection:
                    stage = "statement"
                    connection.execute(text("SELECT 1"))
            except Exception:
                with lock:
                    failed.append((time.monotonic(), stage))
                continue
            with lock:
                done.append(time.monotonic())

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    began = time.monotonic()
    server.restart(down=DOWN)
    up = time.monotonic()
    time.sleep(3.0)
    stop.set()
    for thread in threads:
        thread.join()
    engine.dispose()
    down_until = min((moment for moment in done if moment > began + DOWN), default=up)
    back = max(0.0, down_until - up)
    late = sum(moment > max(up, down_until) + 0.25 for moment, _ in failed)
    stages = [stage for moment, stage in failed if moment > began]
    return stages.count("connect"), stages.count("statement"), late, back


def main() -> None:
    with servers("postgresql", "mariadb") as running:
        for kind, server in running.items():
            rows = []
            for name in ("stock + pre-ping", "ours"):
                for _ in range(3):
                    url = url_of(server)
                    engine = ours(url, pool_size=16) if name == "ours" else stock(url, pre_ping=True, pool_size=16)
                    rows.append((name, *measure(engine, server)))
            columns = (
                "pool",
                "failed acquisitions",
                "failed statements",
                "errors 0.25 s after it is back",
                "back after s",
            )
            report(f"8. restart with {DOWN:.0f} s down under {THREADS} busy threads, {kind}", columns, rows)


if __name__ == "__main__":
    main()
