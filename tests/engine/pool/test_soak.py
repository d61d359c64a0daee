"""A minute of everything at once: kills, recycling, idle timeouts and leak reports under 32 threads."""

from __future__ import annotations

import gc
import logging
import os
import random
import resource
import threading
import time
from typing import Any

import pytest
from sqlalchemy import Engine, exc, text

from dbconfig.engine.pool import stats
from tests.engine.pool.support import assert_whole, callers, eventually, running_engine, url_of

SECONDS = float(os.environ.get("DBCONFIG_SOAK_SECONDS", "60"))
MIN_IDLE = 2


def killed(error: BaseException) -> bool:
    """Whether a statement failed because its own connection was killed under it."""
    return isinstance(error, exc.DBAPIError) and error.connection_invalidated


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the memory of the process is read from /proc")
def test_a_minute_of_kills_recycling_and_idle_care_loses_nothing(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    before = len(server.connections())
    settings: dict[str, Any] = {
        "pool_size": 8,
        "max_overflow": 8,
        "pool_recycle": 1.0,
        "pool_idle_timeout": 1.0,
        "pool_keepalive": 0.5,
        "pool_leak_warning": 0.5,
        "pool_min_idle": MIN_IDLE,
    }
    create = {"connect_args": {"ssl_disabled": True}} if url_of(server).startswith("mysql") else {}
    with running_engine(url_of(server), create=create, **settings) as engine:
        done, failed, unexpected = soak(engine, server)
        now = stats(engine)
        print(
            f"\n{engine.dialect.name}: {done} units, {failed} killed statements, {dict(now.closed)}, {now.created} made"
        )
        assert unexpected == []
        assert_whole(engine.pool)
        assert eventually(lambda: len(server.connections()) - before == MIN_IDLE, within=30)
    assert eventually(lambda: len(server.connections()) == before)


def soak(engine: Engine, server: Any) -> tuple[int, int, list[BaseException]]:
    stop = threading.Event()
    lock = threading.Lock()
    done = failed = 0
    unexpected: list[BaseException] = []
    memory: list[int] = []

    def work(number: int) -> None:
        nonlocal done, failed
        dice = random.Random(number)
        while not stop.is_set():
            try:
                with engine.connect() as connection:
                    for _ in range(dice.randrange(1, 4)):
                        assert connection.execute(text(f"SELECT {number}")).scalar() == number
                    time.sleep(dice.random() * 0.01)
                    if dice.random() < 0.05:
                        connection.commit()
            except Exception as error:
                with lock:
                    failed += killed(error)
                    if not killed(error):
                        unexpected.append(error)
            with lock:
                done += 1
            if dice.random() < 0.01:
                time.sleep(dice.random())  # a lull, so that connections rest

    def disturb() -> None:
        while not stop.wait(random.uniform(0.2, 4.0)):  # each kill invalidates all; in between they grow old
            backends = server.connections()
            if backends:
                server._terminate(random.choice(backends))

    def weigh() -> None:
        while not stop.wait(SECONDS / 12):
            gc.collect()
            memory.append(resident())

    with callers(34) as run:
        jobs = [run(work, number) for number in range(32)] + [run(disturb), run(weigh)]
        time.sleep(SECONDS)
        stop.set()
        for job in jobs:
            job.result(60)
    # The first quarter warms caches up; after that a pool that kept anything per checkout would show.
    growth = memory[-1] - memory[3]
    print(f"\nmemory {memory[3] / 1e6:.1f} MB after a third, {memory[-1] / 1e6:.1f} MB at the end")
    assert growth < 8_000_000
    return done, failed, unexpected
