"""A spike over time, stock beside ours: callers that wait, connections in use, and connections being opened.

python -m benchmarks.spike_timeline --svg docs/images/spike_timeline.svg

50 callers come at once to 5 warm connections of at most 50. A connect takes 150 ms, and each caller holds its
connection for 5 ms. Drawn is the run with the median time of each pool.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, event, text

from benchmarks.engines import ours, stock
from benchmarks.harness import in_threads, machine, servers
from tests.engine.pool.support import url_of

CALLERS, WARM, CONNECT, HOLD, ROUNDS = 50, 5, 0.150, 0.005, 7

_PANEL, _HEIGHT, _LEFT, _TOP, _GAP = 360, 190, 46, 84, 40
_SERIES: Final = {
    "waiting": ("callers that wait", "#c2410c", ""),
    "connecting": ("connections being opened", "#7a3aa8", "5 3"),
    "used": ("connections in use", "#0b62a4", ""),
}
_NAMES: Final = {"stock": "SQLAlchemy's pool", "ours": "dbconfig"}


@dataclass
class Run:
    """What happened, in order: seconds since the callers came, the series, and by how much it changed."""

    changes: list[tuple[float, str, int]] = field(default_factory=list)
    began: float = 0.0

    def note(self, series: str, change: int) -> None:
        self.changes.append((time.perf_counter() - self.began, series, change))  # appending is atomic

    @property
    def served(self) -> float:
        """Seconds until the last caller had its answer."""
        return max(at for at, series, change in self.changes if series == "used" and change < 0)

    @property
    def connects(self) -> int:
        return sum(1 for _, series, change in self.changes if series == "connecting" and change > 0)

    def steps(self, series: str) -> list[tuple[float, int]]:
        """Return a series as points in time with its value from then on."""
        value, found = 0, [(0.0, 0)]
        for at, _, change in sorted(each for each in self.changes if each[1] == series):
            value += change
            found.append((max(0.0, at), value))
        return found


def spike(engine: Engine) -> Run:
    """Run one spike, and close the connections that it has opened."""
    run = Run()
    engine.dispose()
    for connection in [engine.connect() for _ in range(WARM)]:
        connection.execute(text("SELECT 1"))
        connection.close()

    def slow(*_: Any) -> None:
        run.note("connecting", +1)
        time.sleep(CONNECT)

    def opened(*_: Any) -> None:
        run.note("connecting", -1)

    event.listen(engine, "do_connect", slow)
    event.listen(engine, "connect", opened)
    lock = threading.Lock()

    def call(number: int) -> None:
        with lock:
            run.began = run.began or time.perf_counter()
        run.note("waiting", +1)
        with engine.connect() as connection:
            run.note("waiting", -1)
            run.note("used", +1)
            connection.execute(text("SELECT 1"))
            time.sleep(HOLD)
        run.note("used", -1)

    in_threads(CALLERS, call)
    time.sleep(CONNECT * 2)  # let what is under way end
    event.remove(engine, "do_connect", slow)
    event.remove(engine, "connect", opened)
    return run


def median_run(runs: Sequence[Run]) -> Run:
    return sorted(runs, key=lambda run: run.served)[len(runs) // 2]


def picture(runs: dict[str, Run], load: str) -> str:
    """Return the two runs side by side, on the same scales."""
    longest = max(run.served for run in runs.values()) * 1.05
    width = 2 * _PANEL + _LEFT + 2 * _GAP
    bottom = _TOP + _HEIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{bottom + 74}" '
        f'viewBox="0 0 {width} {bottom + 74}" role="img" font-family="system-ui, sans-serif" '
        'font-size="13" fill="#444">',
        "<title>50 callers come at once to 5 warm connections: who waits, and what is opened, over time</title>",
        '<rect width="100%" height="100%" fill="#fff" rx="6"/>',
        f'<text x="{_LEFT}" y="26" font-size="15" font-weight="600">'
        f"{CALLERS} callers at once, {WARM} warm connections, {CONNECT * 1000:.0f} ms for a connect</text>",
    ]
    for number, (name, run) in enumerate(runs.items()):
        left = _LEFT + number * (_PANEL + _GAP)
        lines += _panel(run, name, left, longest)
    for number, (label, color, dashes) in enumerate(_SERIES.values()):
        x = _LEFT + 230 * number
        lines += [
            f'<line x1="{x}" x2="{x + 24}" y1="{bottom + 42}" y2="{bottom + 42}" stroke="{color}" stroke-width="2.5" '
            f'stroke-dasharray="{dashes}"/>',
            f'<text x="{x + 30}" y="{bottom + 46}">{label}</text>',
        ]
    lines += [
        f'<text x="{_LEFT}" y="{bottom + 66}" font-size="11" fill="#777">python -m benchmarks.spike_timeline, '
        f"PostgreSQL, two cores at load {load}: the median of {ROUNDS} runs each</text>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _panel(run: Run, name: str, left: int, longest: float) -> list[str]:
    bottom = _TOP + _HEIGHT

    def x(at: float) -> float:
        return left + _PANEL * min(at, longest) / longest

    def y(value: float) -> float:
        return bottom - _HEIGHT * value / CALLERS

    said = f"all served after {run.served * 1000:.0f} ms, {run.connects} connections opened"
    lines = [
        f'<text x="{left}" y="{_TOP - 30}" font-weight="600">{_NAMES[name]}</text>',
        f'<text x="{left}" y="{_TOP - 13}">{said}</text>',
    ]
    for value in (0, CALLERS // 2, CALLERS):
        lines.append(f'<line x1="{left}" x2="{left + _PANEL}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>')
        if left == _LEFT:
            lines.append(f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value}</text>')
    step = next(each for each in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0) if longest / each <= 7)
    for number in range(int(longest / step) + 1):
        shown = f"{number * step * 1000:.0f}{'' if number else ' ms'}"
        lines.append(f'<text x="{x(number * step):.1f}" y="{bottom + 18}" text-anchor="middle">{shown}</text>')
    for series, (_, color, dashes) in _SERIES.items():
        points, before = [], 0
        for at, value in [*run.steps(series), (longest, run.steps(series)[-1][1])]:
            points += [f"{x(at):.1f},{y(before):.1f}", f"{x(at):.1f},{y(value):.1f}"]
            before = value
        fill = color if series == "waiting" else "none"
        lines.append(
            f'<polyline points="{" ".join(points)}" fill="{fill}" fill-opacity="0.15" stroke="{color}" '
            f'stroke-width="2" stroke-dasharray="{dashes}"/>'
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--svg", type=Path, help="where to draw the picture")
    arguments = parser.parse_args()
    with servers("postgresql") as running:
        url = url_of(running["postgresql"])
        engines = {"stock": stock(url, pool_size=50, max_overflow=0), "ours": ours(url, pool_size=50, max_overflow=0)}
        runs: dict[str, list[Run]] = {name: [] for name in engines}
        for _ in range(ROUNDS):
            for name, engine in engines.items():
                runs[name].append(spike(engine))
        for engine in engines.values():
            engine.dispose()
    for name, found in runs.items():
        took = [run.served * 1000 for run in found]
        opened = statistics.median(run.connects for run in found)
        span = f"median {statistics.median(took):.0f}, {min(took):.0f} to {max(took):.0f}"
        print(f"{name}: all served after so many ms: {span}; connections opened: {opened:.0f}")
    if arguments.svg is not None:
        chosen = {name: median_run(found) for name, found in runs.items()}
        arguments.svg.write_text(picture(chosen, machine()["load"]), encoding="utf-8")


if __name__ == "__main__":
    main()
