"""7. What each behaviour costs per checkout and checkin, on and off."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy import Engine, text

from benchmarks.engines import ours, stock
from benchmarks.harness import medians, paired, report, servers
from dbconfig import Profile, Registry
from tests.engine.pool.support import url_of

OPERATIONS = 3000
ROUNDS = 15
OFF: dict[str, Any] = {"pool_pre_ping": False, "pool_recycle": -1, "pool_idle_timeout": None, "pool_keepalive": None}

IDLE: dict[str, Any] = {"pool_idle_timeout": 600.0, "pool_keepalive": 120.0}


def loop(engine: Engine) -> float:
    connect = engine.pool.connect
    began = time.perf_counter()
    for _ in range(OPERATIONS):
        connect().close()
    return (time.perf_counter() - began) / OPERATIONS * 1e6


def rested(engine: Engine) -> float:
    """The same with a rest before each checkout, long enough that the socket is looked at."""
    took = 0.0
    for _ in range(60):
        time.sleep(0.006)
        began = time.perf_counter()
        engine.pool.connect().close()
        took += time.perf_counter() - began
    return took / 60 * 1e6


def resets(running: dict[str, Any]) -> None:
    """`pool_reset: discard`, on the engines of profiles: one transaction with one statement."""
    for name, drivername in (("postgresql", "postgresql+psycopg2"), ("mariadb", "mysql+pymysql")):
        url = running[name].url(drivername)
        databases = {
            reset: Registry.from_profile(Profile(name="costs", url=url, pool_reset=reset))
            for reset in ("rollback", "discard")
        }

        def one(db: Registry) -> float:
            began = time.perf_counter()
            for _ in range(300):
                with db.session() as session:
                    session.execute(text("SELECT 1"))
            return (time.perf_counter() - began) / 300 * 1e6

        runs: dict[str, Callable[[], float]] = {reset: partial(one, db) for reset, db in databases.items()}
        result = medians(paired(runs, ROUNDS))
        report(
            f"7. cost of pool_reset, {drivername}",
            ("pool_reset", "µs per session with one statement", "ratio"),
            [(reset, us, us / result["rollback"]) for reset, us in result.items()],
            "the round trips of the reset: one on PostgreSQL, two and those of the variables on MySQL",
        )
        for db in databases.values():
            db.dispose()


def main() -> None:
    with servers("postgresql", "mariadb") as running:
        resets(running)
        url = url_of(running["postgresql"])
        engines = {
            "stock, no ping": stock(url),
            "ours, everything off": ours(url, **OFF),
            "+ pool_pre_ping 1 s": ours(url, **OFF | {"pool_pre_ping": 1.0}),
            "+ pool_recycle": ours(url, **OFF | {"pool_recycle": 1800.0}),
            "+ pool_idle_timeout, pool_keepalive": ours(url, **OFF | IDLE),
            "+ pool_max_waiting": ours(url, **OFF | {"pool_max_waiting": 100}),
            "+ pool_leak_warning": ours(url, **OFF | {"pool_leak_warning": 30.0}),
            "ours, all defaults": ours(url),
        }
        for title, one in (("back to back", loop), ("after 6 ms of rest", rested)):
            runs: dict[str, Callable[[], float]] = {name: partial(one, engine) for name, engine in engines.items()}
            for run in runs.values():
                run()
            result = medians(paired(runs, ROUNDS))
            rows = [(name, us, us / result["stock, no ping"]) for name, us in result.items()]
            report(
                f"7. cost of each behaviour, {title}",
                ("pool", "µs per checkout + checkin", "ratio to stock without ping"),
                rows,
                "off costs nothing measurable; all defaults ≤ 1.10 of stock without ping",
            )
        for engine in engines.values():
            engine.dispose()


if __name__ == "__main__":
    main()
