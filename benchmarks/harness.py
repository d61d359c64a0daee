"""What the benchmarks share: paired runs, ratios of medians, a table and JSON."""

from __future__ import annotations

import json
import platform
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

T = TypeVar("T")

PACKAGES = ("sqlalchemy", "psycopg2-binary", "pymysql", "psycopg", "psycopg-pool", "asyncpg", "asyncmy", "aiomysql")


def paired(runs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run all contenders in turn, ``rounds`` times, so that what disturbs the machine disturbs each of them."""
    results: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            results[name].append(runs[name]())
    return results


async def async_paired(runs: Mapping[str, Callable[[], Awaitable[T]]], rounds: int) -> dict[str, list[T]]:
    """The same for coroutine functions."""
    results: dict[str, list[T]] = {name: [] for name in runs}
    names = list(runs)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            results[name].append(await runs[name]())
    return results


def medians(results: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in results.items()}


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def in_threads(count: int, work: Callable[[int], None]) -> float:
    """Run work(0) … work(count - 1) at the same time and return the seconds until the last has ended."""
    start = threading.Barrier(count + 1)
    errors: list[BaseException] = []

    def run(number: int) -> None:
        start.wait()
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    if errors:
        raise errors[0]
    return took


@contextmanager
def servers(*kinds: str) -> Iterator[dict[str, Any]]:
    """Private servers from the installed programs, by kind."""
    from contextlib import ExitStack

    from tests.support import servers as support

    with ExitStack() as stack:
        yield {kind: stack.enter_context(getattr(support, kind)(settings={"max_connections": 400})) for kind in kinds}


def machine() -> dict[str, str]:
    model = next((line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")), "unknown")
    found = {"python": sys.version.split()[0], "system": platform.platform(), "cpu": model, "cores": str(_cores())}
    found["load"] = _load()
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _cpuinfo() -> list[str]:
    try:
        with open("/proc/cpuinfo") as file:
            return file.readlines()
    except OSError:
        return []


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0


def _load() -> str:
    """How many processes wanted to run in the last minute: what else the machine had to do."""
    import os

    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def report(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], goal: str = "") -> None:
    """Print the result as a Markdown table and as one line of JSON."""
    cells = [[_cell(value) for value in row] for row in rows]
    print(f"\n### {title}\n")
    if goal:
        print(f"Goal: {goal}\n")
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in cells:
        print("| " + " | ".join(row) + " |")
    document = {"benchmark": title, "columns": list(columns), "rows": [list(row) for row in rows], "machine": machine()}
    print("\n```json\n" + json.dumps(document) + "\n```", flush=True)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)
