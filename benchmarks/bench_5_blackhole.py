"""5. A server that has gone silent: the longest time that a caller waits, against pool_timeout."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import Any

from sqlalchemy import Engine, text

from benchmarks.engines import ours, stock
from benchmarks.harness import in_threads, report, servers
from tests.engine.pool.support import url_of
from tests.support.proxy import Proxy

POOL_TIMEOUT = 2.0
CALLERS = 12
GIVE_UP = 20.0  # then the server is let go on, so that the stock pool's callers come back at all
WARM = 4


def longest_wait(engine: Engine, silence: Any, heal: Any) -> float:
    """Return the longest acquisition; the statement that follows is not part of it."""
    import threading

    held = [engine.connect() for _ in range(WARM)]
    for connection in held:
        connection.execute(text("SELECT 1"))
        connection.close()
    time.sleep(1.2)  # longer than a connection may rest without a ping
    waits = [0.0] * CALLERS
    silence()
    timer = threading.Timer(GIVE_UP, heal)
    timer.start()

    def call(number: int) -> None:
        began = time.perf_counter()
        with suppress(Exception):
            engine.connect().close()
        waits[number] = time.perf_counter() - began

    in_threads(CALLERS, call)
    timer.cancel()
    heal()
    time.sleep(0.5)
    engine.dispose()
    return max(waits)


def _heal(wire: Proxy) -> None:
    wire.pass_through()  # for new connections; the silent ones are broken off
    wire.reset()


def main() -> None:
    with servers("postgresql", "mariadb") as running:
        for kind, server in running.items():
            rows = []
            for how in ("SIGSTOP", "a proxy that swallows"):
                for name in ("stock + pre-ping", "ours"):
                    with Proxy(server.host, server.port) as wire:
                        url = url_of(server, wire)
                        settings: dict[str, Any] = {"pool_size": 5, "max_overflow": 10, "pool_timeout": POOL_TIMEOUT}
                        engine = ours(url, **settings) if name == "ours" else stock(url, pre_ping=True, **settings)
                        heal = partial(_heal, wire)
                        acts = (server.pause, server.resume) if how == "SIGSTOP" else (wire.swallow, heal)
                        wait = longest_wait(engine, *acts)
                    rows.append((how, name, wait, wait / POOL_TIMEOUT))
            report(
                f"5. silent server, {CALLERS} callers, pool_timeout {POOL_TIMEOUT} s, {kind}",
                ("how", "pool", f"longest wait s (healed after {GIVE_UP:.0f} s)", "× pool_timeout"),
                rows,
                "≤ 1.1 × pool_timeout",
            )


if __name__ == "__main__":
    main()
