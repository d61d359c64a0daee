"""What many of something cost: databases that nobody uses, engines at rest, callers that wait. Curves, not points.

``python -m benchmarks.scale`` takes three minutes; ``--quick`` leaves the longest points out.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlmodel import Session

from benchmarks.harness import report
from benchmarks.paired import children_seconds
from dbconfig import Profile, Registry

TENANTS = 20  # databases of a profile


def resident() -> int:
    """Return the memory of this process that is in use, in bytes."""
    gc.collect()
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Rss:")) * 1024


def in_a_process(name: str, number: int) -> list[float]:
    """Run a function of this module in a process of its own, whose memory nobody has used before."""
    code = f"from benchmarks import scale; print(*scale.{name}({number}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()]


def write_profiles(folder: Path, number: int) -> None:
    (folder / "default.yaml").write_text("pool_size: 2\n")
    databases = "".join(f"  tenant{each:02}: {{url: 'sqlite:///{{}}-{each}.db'}}\n" for each in range(TENANTS))
    for each in range(number):
        name = f"company-{each:04}"
        (folder / f"{name}.yaml").write_text(f"databases:\n{databases.replace('{}', str(folder / name))}")


def tenants(number: int) -> Iterator[float]:
    """Profiles of 20 databases each in one registry, of which 20 engines are used."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_profiles(folder, number + 1)
        with Registry(folder, profile="company-0000", environ={}) as db:
            with db.session("tenant00") as session:  # what is loaded once is not counted
                session.execute(text("SELECT 1"))
            before, began = resident(), time.perf_counter()
            for each in range(1, number):
                db._profiles.get(f"company-{each:04}")  # as its first session does, without an engine
            loaded = time.perf_counter() - began
            yield loaded / max(number - 1, 1) * 1e3
            yield (resident() - before) / max(number - 1, 1) / TENANTS / 1024
            last = f"company-{number:04}"
            began = time.perf_counter()
            with db.session("tenant00", profile=last) as session:
                session.execute(text("SELECT 1"))
            yield (time.perf_counter() - began) * 1e3
            began = time.perf_counter()
            db.session("tenant00", profile=last).close()
            yield (time.perf_counter() - began) * 1e6


def engines(number: int) -> Iterator[float]:
    """Engines that were used once and rest, and what the care of them costs while nobody asks."""
    with tempfile.TemporaryDirectory() as folder:
        registries = [
            Registry.from_profile(
                Profile(
                    name=f"shop{each}", url=f"sqlite:///{folder}/{each}.db", pool_keepalive=1.0, pool_idle_timeout=60
                )
            )
            for each in range(number + 1)
        ]

        def use(db: Registry) -> None:
            with db.session() as session:
                session.execute(text("SELECT 1"))

        use(registries[0])
        before = resident()
        for db in registries[1:]:
            db.engine()
        made = resident()
        for db in registries[1:]:
            use(db)
        yield (made - before) / number / 1024
        yield (resident() - made) / number / 1024
        yield sum(thread.name == "dbconfig-caretaker" for thread in threading.enumerate())
        began = time.process_time()
        time.sleep(5)
        yield (time.process_time() - began) / 5 * 1e3
        for db in registries:
            db.dispose()


def further_engines(number: int) -> Iterator[float]:
    """What one of many engines takes that were used once, in kB."""
    yield _taken(number, lambda url: Registry.from_profile(Profile(name="shop", url=url)))


def further_stock_engines(number: int) -> Iterator[float]:
    """The same of SQLAlchemy's own."""
    yield _taken(number, create_engine)


def _taken(number: int, make: Callable[[str], Any]) -> float:
    kept: list[Any] = []

    def use(url: str) -> None:
        kept.append(made := make(url))
        with made.session() if isinstance(made, Registry) else Session(made) as session:
            session.execute(text("SELECT 1"))

    with tempfile.TemporaryDirectory() as folder:
        use(f"sqlite:///{folder}/first.db")
        before = resident()
        for each in range(number):
            use(f"sqlite:///{folder}/{each}.db")
        return (resident() - before) / number / 1024


def waiting_threads(number: int) -> Iterator[float]:
    """Threads that wait for the one connection of a pool, each handing it to the next."""
    threading.stack_size(256 * 1024)
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 600}
        db = Registry.from_profile(Profile(name="crowd", url=f"sqlite:///{folder}/a.db", **settings))
        pool: Any = db.engine().pool
        gate = threading.Event()

        def plainly() -> None:
            gate.wait()

        before = resident()
        threads = [threading.Thread(target=plainly, daemon=True) for _ in range(number)]
        for thread in threads:
            thread.start()
        bare = resident() - before
        gate.set()
        for thread in threads:
            thread.join()
        held = pool.connect()
        before = resident()
        threads = [threading.Thread(target=lambda: pool.connect().close(), daemon=True) for _ in range(number)]
        for thread in threads:
            thread.start()
        while len(pool.waiters) < number:
            time.sleep(0.01)
        waiting = resident() - before
        began = time.perf_counter()
        held.close()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - began
        yield took / number * 1e6
        yield waiting / number / 1024
        yield bare / number / 1024
        db.dispose()


def waiting_tasks(number: int) -> Iterator[float]:
    """The same for tasks of one event loop."""
    with tempfile.TemporaryDirectory() as folder:
        yield from asyncio.run(_waiting_tasks(number, folder))


async def _waiting_tasks(number: int, folder: str) -> list[float]:
    settings: dict[str, Any] = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 600}
    profile = Profile(name="crowd", url=f"sqlite+aiosqlite:///{folder}/a.db", **settings)
    async with Registry.from_profile(profile) as db:
        engine = db.async_engine()
        pool: Any = engine.pool

        async def one() -> None:
            async with engine.connect():
                pass

        await one()
        gate = asyncio.Event()
        before = resident()
        tasks = [asyncio.create_task(_passes(gate)) for _ in range(number)]
        await asyncio.sleep(0)
        bare = resident() - before
        gate.set()
        await asyncio.gather(*tasks)
        del tasks
        before = resident()
        async with engine.connect():
            tasks = [asyncio.create_task(one()) for _ in range(number)]
            while len(pool.waiters) < number:
                await asyncio.sleep(0.01)
            waiting = resident() - before
            began = time.perf_counter()
        await asyncio.gather(*tasks)
        return [(time.perf_counter() - began) / number * 1e6, waiting / number / 1024, bare / number / 1024]


async def _passes(gate: asyncio.Event) -> None:
    await gate.wait()


def validation(number: int) -> Iterator[float]:
    """`dbconfig validate --all` over profiles of one database each, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "default.yaml").write_text("pool_size: 5\npool_timeout: 30s\n")
        for each in range(number):
            (folder / f"p{each:04}.yaml").write_text(
                f"url: postgresql://app:${{PASSWORD}}@db{each}.example.com/shop\nsslmode: verify-full\n"
                "sslrootcert: system\nstatement_timeout: 30s\n"
            )
        command = [sys.executable, "-m", "dbconfig", "validate", "--all", "--config", name]
        yield children_seconds(command)


CURVES: dict[str, tuple[tuple[int, ...], tuple[str, ...], str]] = {
    "tenants": (
        (10, 100, 300, 1000),
        ("ms to load a profile", "kB per database never used", "ms to the first session of the last", "µs of its next"),
        "≤ 4 kB for a database that was never used; the first session does not depend on how many there are",
    ),
    "engines": (
        (1, 8, 64),
        ("kB of an engine", "kB more once used", "threads that care", "ms of processor time per second of rest"),
        "one thread for all",
    ),
    "waiting_threads": (
        (100, 1000, 4000, 10_000),
        ("µs per hand-off", "kB per waiter", "kB of a thread that waits for an Event"),
        "flat",
    ),
    "waiting_tasks": (
        (100, 1000, 4000, 10_000),
        ("µs per hand-off", "kB per waiter", "kB of a task that waits for an Event"),
        "flat",
    ),
    "validation": ((1, 50, 200, 800), ("seconds of processor time",), "200 profiles in at most 1 s"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave the longest points out")
    parser.add_argument("curves", nargs="*", help=f"of {', '.join(CURVES)} (all)")
    given = parser.parse_args()
    for name in given.curves or CURVES:
        numbers, columns, goal = CURVES[name]
        rows = [(number, *in_a_process(name, number)) for number in (numbers[:-1] if given.quick else numbers)]
        report(f"scale: {name.replace('_', ' ')}", ("number", *columns), rows, goal)


if __name__ == "__main__":
    main()
