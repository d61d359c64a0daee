"""Time alternatives side by side: in turns, in one process or as processes, as ratios of medians.

Machines are shared and noisy: only what ran in the same second can be compared, so each round runs every alternative
once, in an order that changes from round to round.
"""

import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from statistics import median


def per_call(work: Callable[[], object], calls: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return seconds per call."""
    start = clock()
    for _ in range(calls):
        work()
    return (clock() - start) / calls


def in_process(
    alternatives: Mapping[str, Callable[[], object]],
    *,
    calls: int,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time functions in turns; return seconds per call for each round.

    With `time.process_time` only what the process computes counts, on a machine that others use as well.
    """
    samples: dict[str, list[float]] = {name: [] for name in alternatives}
    for work in alternatives.values():
        per_call(work, max(1, calls // 10))  # caches and the first connection are not what is measured
    for _ in range(rounds):
        for name in random.sample(list(alternatives), len(alternatives)):
            samples[name].append(per_call(alternatives[name], calls, clock))
    return samples


def as_processes(alternatives: Mapping[str, Sequence[str]], *, rounds: int) -> dict[str, list[float]]:
    """Time whole processes in turns, by the processor time that they used; return seconds for each round."""
    samples: dict[str, list[float]] = {name: [] for name in alternatives}
    for turn in range(rounds + 1):
        for name in random.sample(list(alternatives), len(alternatives)):
            used = children_seconds(alternatives[name])
            if turn:  # the first turn compiles the modules and fills the file cache
                samples[name].append(used)
    return samples


def children_seconds(command: Sequence[str]) -> float:
    import resource

    # An installed package has its bytecode beside it; a machine set up not to write any would measure the compiler.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def report(title: str, samples: Mapping[str, Sequence[float]], *, base: str, goal: str) -> None:
    """Print a table of medians and of ratios to `base` (the median of the rounds' own ratios), and the same as JSON."""
    rows = []
    for name, found in samples.items():
        ratio = median(one / reference for one, reference in zip(found, samples[base], strict=True))
        rows.append({"name": name, "median_microseconds": round(median(found) * 1e6, 2), "ratio": round(ratio, 3)})
    print(f"{title} (goal: {goal}; {len(samples[base])} rounds)")
    for row in rows:
        print(f"  {row['name']:<44} {row['median_microseconds']:>14,.2f} µs {row['ratio']:>8.3f} x")
    versions = {name: version(name) for name in ("sqlalchemy", "sqlmodel", "pydantic", "pydantic-settings")}
    machine = {"python": sys.version.split()[0], "machine": platform.machine(), **versions}
    print(json.dumps({"title": title, "goal": goal, "rows": rows, "machine": machine}))
