"""What 1,000 processes do to a server that comes back: the waiting line's own code under a virtual clock.

python -m benchmarks.storm --svg docs/images/storm.svg

Every process has the pool of an asynchronous engine (5 + 10), and requests that come at random. The server goes away,
and comes back after 10 s; it takes up connections one after the other. Nothing waits for real: the clock jumps from
event to event.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dbconfig.engine.pool.line import Line
from dbconfig.engine.pool.place import NEVER, Caller, Close, Connect, Place, Rules, Serve, WakeAt
from dbconfig.engine.pool.tally import Counters

PROCESSES = 1000
RATE = 0.5  # requests a second and process
WORK = 0.01  # seconds that a request has its connection for
WARM = 5.0  # seconds before the server goes away
DOWN = 10.0
AFTER = 5.0
LOGINS = 1000.0  # logins a second that the server can do
TIMEOUT = 30.0  # pool_timeout, and for stock each request's patience


@dataclass
class Server:
    """Refuses at once while it is down; else takes up one connection after the other."""

    up: bool = True
    free_at: float = 0.0
    attempts: Counter[int] = field(default_factory=Counter)  # by the tenth of a second

    def login(self, now: float) -> float | None:
        """Return when a login is done; None is a refusal."""
        self.attempts[int(now * 10)] += 1
        if not self.up:
            return None
        self.free_at = max(now, self.free_at) + 1 / LOGINS
        return self.free_at


class World:
    """Time, and what happens when."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.random = random.Random(seed)
        self.server = Server()
        self.waits: list[tuple[float, float]] = []  # when a request was served, and how long it had waited
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), what))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, what = heapq.heappop(self._events)
            what()


class Ours:
    """A process with the pool's own line."""

    def __init__(self, world: World, jitter: float) -> None:
        self.world = world
        share = world.random.uniform(1 - jitter, 1 + jitter)
        usual = Rules()
        self.line = Line(
            replace(usual, retry_first=usual.retry_first * share, retry_longest=usual.retry_longest * share), Counters()
        )

    def request(self) -> None:
        now = self.world.now
        place = self.line.take(now)
        if place is not None and getattr(place, "dead", False) is False:
            self._use(place, now)
            return
        caller = Caller(now + TIMEOUT, now)
        self.line.ask(caller, now)
        self._obey()

    def _use(self, place: Place, arrived: float) -> None:
        world = self.world
        world.waits.append((world.now, world.now - arrived))
        world.at(world.now + WORK, lambda: self._return(place))

    def _return(self, place: Place) -> None:
        if self.world.server.up and place.generation == self.line.generation:
            self.line.give_back(place, self.world.now)
        else:
            self.line.lost(place, self.world.now)
        self._obey()

    def lose(self) -> None:
        """The server is gone: every connection is."""
        self.line.invalidate(self.world.now)
        self._obey()

    def _obey(self) -> None:
        line, world = self.line, self.world
        while line.commands:
            commands, line.commands = line.commands, []
            for command in commands:
                if isinstance(command, Serve):
                    if command.caller.place is not None:
                        self._use(command.caller.place, command.caller.arrived)
                elif isinstance(command, Connect):
                    self._connect(command.place)
                elif isinstance(command, Close):
                    world.at(world.now, lambda place=command.place: self._closed(place))  # type: ignore[misc]
                elif isinstance(command, WakeAt):
                    world.at(max(command.when, world.now), self._wake)

    def _closed(self, place: Place) -> None:
        self.line.closed(place, self.world.now)
        self._obey()

    def _wake(self) -> None:
        self.line.tick(self.world.now)
        self._obey()

    def _connect(self, place: Place) -> None:
        done = self.world.server.login(self.world.now)
        self.world.at(self.world.now + 0.001 if done is None else done, lambda: self._connected(place, done))

    def _connected(self, place: Place, done: float | None) -> None:
        now = self.world.now
        if done is None:
            self.line.connect_failed(place, ConnectionRefusedError(), transient=True, now=now)
        else:
            self.line.connected(place, now, NEVER)
        self._obey()


class Naive:
    """A process whose requests each connect as long as the pool has room, and try again every 100 ms."""

    def __init__(self, world: World, jitter: float) -> None:
        self.world, self.idle, self.open, self.queue = world, 0, 0, list[float]()

    def request(self) -> None:
        self._try(self.world.now)

    def _try(self, arrived: float) -> None:
        world = self.world
        if world.now - arrived > TIMEOUT:
            return
        if self.idle:
            self.idle -= 1
            self._use(arrived)
        elif self.open < 15:
            self.open += 1
            done = world.server.login(world.now)
            if done is None:
                self.open -= 1
                world.at(world.now + 0.1, lambda: self._try(arrived))
            else:
                world.at(done, lambda: self._use(arrived))
        else:
            self.queue.append(arrived)

    def _use(self, arrived: float) -> None:
        world = self.world
        world.waits.append((world.now, world.now - arrived))
        world.at(world.now + WORK, self._return)

    def _return(self) -> None:
        if not self.world.server.up:
            self.open -= 1
        elif self.queue:
            self._use(self.queue.pop(0))
        elif self.open > 5:
            self.open -= 1  # an overflow connection is closed
        else:
            self.idle += 1

    def lose(self) -> None:
        self.open -= self.idle
        self.idle = 0


def simulate(kind: Callable[[World, float], Any], jitter: float = 0.0, seed: int = 1) -> dict[str, Any]:
    world = World(seed)
    processes = [kind(world, jitter) for _ in range(PROCESSES)]
    end = WARM + DOWN + AFTER

    def arrivals(process: Any) -> None:
        process.request()
        world.at(world.now + world.random.expovariate(RATE), lambda: arrivals(process))

    def go() -> None:
        world.server.up = False
        for process in processes:
            process.lose()

    def come() -> None:
        world.server.up = True

    for process in processes:
        world.at(world.random.uniform(0, 1 / RATE), lambda process=process: arrivals(process))  # type: ignore[misc]
    world.at(WARM, go)
    world.at(WARM + DOWN, come)
    world.run(end)
    away = [count for tenth, count in world.server.attempts.items() if WARM <= tenth / 10 < WARM + DOWN]
    back = [count for tenth, count in world.server.attempts.items() if WARM + DOWN <= tenth / 10 < WARM + DOWN + 2]
    late = [at for at, wait in world.waits if at > WARM + DOWN and wait > 0.1]
    return {
        "attempts": world.server.attempts,
        "while away, a second": round(sum(away) / DOWN),
        "peak while away, in 0.1 s": max(away, default=0),
        "peak in the 2 s after, in 0.1 s": max(back, default=0),
        "logins in the 2 s after": sum(back),
        "steady after": round(max(late, default=WARM + DOWN) - WARM - DOWN, 1),
    }


def picture(results: dict[str, dict[str, Any]]) -> str:
    """Return the attempts per second of each kind as curves."""
    width, height, left, top = 760, 300, 60, 20
    end = WARM + DOWN + AFTER
    curves = {
        name: [sum(found["attempts"][second * 10 + each] for each in range(10)) for second in range(int(end))]
        for name, found in results.items()
    }
    most = max(max(curve) for curve in curves.values())
    colors = ("#b3261e", "#9a6b00", "#1a6b3c")
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + 80}" height="{height + 90}" role="img" '
        f'viewBox="0 0 {width + 80} {height + 90}" font-family="sans-serif" font-size="13">',
        "<title>Connects a second of 1,000 processes while a server is away for 10 s, and after</title>",
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    x0, x1 = (left + width * at / end for at in (WARM, WARM + DOWN))
    lines.append(f'<rect x="{x0:.0f}" y="{top}" width="{x1 - x0:.0f}" height="{height}" fill="#f1f1f1"/>')
    lines.append(f'<text x="{(x0 + x1) / 2:.0f}" y="{top + 16}" text-anchor="middle">the server is away</text>')
    for share in (0, 0.5, 1):
        y = top + height * (1 - share)
        lines.append(f'<text x="{left - 8}" y="{y + 4:.0f}" text-anchor="end">{most * share:,.0f}</text>')
        lines.append(f'<line x1="{left}" x2="{left + width}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ccc"/>')
    for number, (name, curve) in enumerate(curves.items()):
        points = " ".join(
            f"{left + width * (second + 0.5) / end:.1f},{top + height * (1 - count / most):.1f}"
            for second, count in enumerate(curve)
        )
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colors[number]}" stroke-width="2"/>')
        y = top + height + 28 + 18 * number
        lines.append(f'<text x="{left}" y="{y}" fill="{colors[number]}">{name}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--svg", type=Path)
    given = parser.parse_args()
    results = {
        "each request connects, and tries again every 100 ms": simulate(Naive),
        "dbconfig's pool, all with the same pauses": simulate(Ours),
        "dbconfig's pool, pauses that differ by up to 25 % from process to process": simulate(Ours, 0.25),
    }
    for name, found in results.items():
        print(name, {key: value for key, value in found.items() if key != "attempts"})
    if given.svg:
        given.svg.write_text(picture(results))


if __name__ == "__main__":
    main()
