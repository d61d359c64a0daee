"""Worlds with a virtual clock that drive the line, or the pool of threads, through a schedule and check the promises.

A schedule is plain data: the rules and a list of steps. The same schedule always runs the same way, so that a failing
one can be shrunk and printed. Run a million of them, or replay one: `python -m tests.engine.pool.simulator --help`.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from dbconfig.engine.pool.line import Line
from dbconfig.engine.pool.mending import REVIEW, mend
from dbconfig.engine.pool.place import NEVER, Caller, Close, Connect, Ping, Place, Refusal, Rules, Serve, State, WakeAt
from dbconfig.engine.pool.tally import Counters
from dbconfig.engine.pool.threads import FairPool

from .simulated_server import (
    CLOSE_LIMIT,
    CONNECT_LIMIT,
    LIFETIME,
    MOST_EVENTS,
    PING_LIMIT,
    TIMEOUT,
    Broken,
    Connection,
    Server,
)
from .thread_world import ThreadWorld

Kind = type[Line] | type[FairPool]
Step = tuple[float, str, int]  # pause before it, what happens, a number that picks whom it concerns

# What may happen, and how often. What concerns nobody at that moment has no effect.
KINDS = {
    "ask": 32,
    "give back": 24,
    "cancel": 8,
    "vanish": 3,  # a holder is interrupted, or its connection breaks
    "wait": 6,
    "invalidate": 2,
    "condemn": 2,
    "dispose": 1,
    "fork": 1,
    "restart": 2,  # the server closes every connection
    "suspend": 1,  # the machine sleeps for an hour
    "up": 3,
    "slow": 2,
    "refuse": 2,  # connects fail for now
    "reject": 2,  # connects fail for good
    "hang": 2,
}
_NAMES, _WEIGHTS = list(KINDS), list(KINDS.values())
# What an exception out of a signal handler does to the line of asyncio, in some of the schedules.
STRIKES = {
    "strike": 4,  # in the middle of the next event
    "lose": 2,  # the next command, before it is carried out
    "drop": 1,  # a holder ends without notice
    "abandon": 1,  # and so does a caller who waits
}
STRUCK = 0.3  # of the schedules
LAST_LOOKS = 1.0
# What the line does within an event, before or after which a strike may fall.
_INNER = ("_decide", "_close", "_release", "_staff", "_first", "_hand_over", "_line_up", "connect", "take", "why_unfit")


class Interrupt(BaseException):
    """What a signal handler raises."""


@dataclass(frozen=True)
class Schedule:
    rules: Rules
    steps: tuple[Step, ...]

    def script(self) -> str:
        """Return a program that runs this schedule again."""
        given = ", ".join(f"{name}={value!r}" for name, value in vars(self.rules).items())
        lines = [f"    ({pause!r}, {kind!r}, {pick})," for pause, kind, pick in self.steps]
        head = [
            "from dbconfig.engine.pool.place import Rules",
            "from tests.engine.pool.simulator import Schedule, run",
            "",
            f"rules = Rules({given})".replace("inf", "float('inf')"),
            "steps = (",
        ]
        return "\n".join([*head, *lines, ")", "run(Schedule(rules, steps))"])


def draw(seed: int) -> Schedule:
    """Return the schedule of a seed."""
    pick = random.Random(seed)
    size = pick.randint(1, 3)
    own = random.Random(f"who connects in {seed}")
    rules = Rules(
        size=size,
        limit=size + pick.randint(0, 2),
        lifo=pick.random() < 0.3,
        max_waiting=pick.choice([None, None, 0, 1, 3]),
        min_idle=pick.choice([0, 0, 1, 2]),
        idle_timeout=pick.choice([None, 0.5, 5.0]),
        keepalive=pick.choice([None, 0.5, 5.0]),
        patient=pick.random() < 0.8,
        queue_target=pick.choice([None, None, 0.05]),
        callers_connect=own.random() < 0.1,
        first_by_caller=own.random() < 0.4,
    )
    kinds = pick.choices(_NAMES, _WEIGHTS, k=pick.randint(4, 36))
    pauses = pick.choices((0.0, 0.001, 0.01, 0.05, 0.3), (60, 20, 15, 8, 5), k=len(kinds))
    steps = [(pause, kind, pick.randrange(8)) for pause, kind in zip(pauses, kinds, strict=True)]
    if pick.random() < STRUCK:
        for name in pick.choices(list(STRIKES), list(STRIKES.values()), k=pick.randint(1, 4)):
            steps.insert(pick.randint(0, len(steps)), (0.0, name, pick.randrange(16)))
    return Schedule(rules, tuple(steps))


class Pool:
    """A driver of one line, as the one for asyncio is, with timers of the virtual clock."""

    def __init__(self, world: World, rules: Rules) -> None:
        self.world = world
        self.rules = rules
        self.line = world.kind(rules, Counters())
        self.queue: list[Caller] = []  # who must be served in which order
        self.served: list[Caller] = []  # decided, and not yet awake
        self.holders: list[Place] = []
        self.connecting: set[Place] = set()
        self.checking: set[Place] = set()  # pinged, by the line's wish or by who took it
        self.closing: set[Place] = set()
        self.invalid: set[Place] = set()
        self.tick_at = NEVER
        self.served_soon = world.now  # when somebody was last served within the target, or nobody waited
        self.fuse: int | None = None  # of the strike at the next event
        self.loses = False  # the next command
        self.torn_at: float | None = None  # since when not all is whole
        self.struck = False  # ever

    # -- what an exception out of a signal handler does

    def tell(self, event: Callable[..., None], *about: Any, **more: Any) -> bool:
        """Tell the line of an event; return False if that was struck."""
        fuse, self.fuse = self.fuse, None
        if fuse is None:
            event(*about, **more)
            return True
        left = [fuse]

        def struck(inner: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **keywords: Any) -> Any:
                left[0] -= 1
                if left[0] == -1:
                    raise Interrupt
                result = inner(*arguments, **keywords)
                left[0] -= 1
                if left[0] == -1:
                    raise Interrupt
                return result

            return call

        for name in _INNER:
            setattr(self.line, name, struck(getattr(self.line, name)))
        try:
            event(*about, **more)
        except Interrupt:
            self.tear()
            return False
        finally:
            for name in _INNER:
                delattr(self.line, name)
        return True

    def tear(self) -> None:
        self.struck = True
        if self.torn_at is None:
            self.torn_at = self.world.now

    def drop(self, pick: int) -> None:
        if self.holders:
            self.holders.pop(pick % len(self.holders))
            self.tear()

    def abandon(self, pick: int) -> None:
        if self.queue:
            self.queue.pop(pick % len(self.queue))
            self.tear()

    def mend(self) -> None:
        taken = self.connecting | self.checking | self.closing | set(self.holders)
        taken.update(caller.place for caller in [*self.queue, *self.served] if caller.place is not None)
        mend(self.line, self.queue, lambda place: place in taken, self.world.now)
        if self.torn_at is not None and set(self.line.callers) == set(self.queue):
            self.queue = list(self.line.callers)

    def wake(self, when: float) -> None:
        self.tick_at = when
        self.world.at(when, self.tick, when)

    # -- events of the line

    def ask(self) -> None:
        world = self.world
        if not self.queue:
            self.served_soon = world.now
        caller = Caller(world.now + TIMEOUT, world.now, connects=world.numbers % 4 > 0)
        place = self.line.take(world.now)
        if place is not None:
            self.use(caller, place)
            return
        self.queue.append(caller)
        if not self.tell(self.line.ask, caller, world.now):
            self.queue.remove(caller)
            return
        self.waits(caller)

    def waits(self, caller: Caller) -> None:
        self.obey()
        if caller in self.queue:
            if not self.world.now <= self.tick_at <= self.world.now + 2 * REVIEW:
                self.wake(self.world.now + REVIEW)
            self.world.at(caller.deadline, self.expire, caller)

    def expire(self, caller: Caller) -> None:
        if caller in self.queue:
            self.queue.remove(caller)
            self.tell(self.line.leave, caller, self.world.now)

    def cancel(self, pick: int) -> None:
        """Cancel somebody who waits, or who has been served a moment ago and does not know it yet."""
        both = [*self.queue, *self.served]
        if both:
            caller = both[pick % len(both)]
            (self.queue if caller in self.queue else self.served).remove(caller)
            self.tell(self.line.leave, caller, self.world.now)

    def give_back(self, pick: int) -> None:
        if not self.holders:
            return
        place = self.holders.pop(pick % len(self.holders))
        if place.connection.dead:
            self.end(place)
            self.tell(self.line.lost, place, self.world.now)
        else:
            self.tell(self.line.give_back, place, self.world.now)

    def vanish(self, pick: int) -> None:
        if self.holders:
            place = self.holders.pop(pick % len(self.holders))
            self.end(place)
            self.tell(self.line.lost, place, self.world.now)

    def condemn(self, pick: int) -> None:
        known = [*self.line.idle, *self.holders]
        if known:
            self.invalid.add(known[pick % len(known)])
            self.line.condemn([known[pick % len(known)]])

    def invalidate(self) -> None:
        self.invalid.update(self.line.idle, self.holders, self.connecting, self.checking)
        self.invalid.update(caller.place for caller in self.served if caller.place is not None)
        self.tell(self.line.invalidate, self.world.now)

    def dispose(self) -> None:
        self.mend()
        self.line.dispose(self.world.now)
        self.obey()
        if not self.queue:
            self.wake(self.world.now + LAST_LOOKS)

    def fork(self) -> None:
        """Go on in the child: nobody is there but the one who forked, who holds nothing."""
        for place in self.line.forget():
            place.connection.pinned = True
        for place in [*self.holders, *self.checking]:
            place.connection.pinned = True
        for group in (self.queue, self.served, self.holders, self.connecting, self.checking, self.closing):
            group.clear()
        self.world.heap.clear()
        self.tick_at = NEVER
        self.torn_at, self.fuse, self.loses = None, None, False
        for connection in self.world.server.connections:
            connection.pinned = True

    # -- what the line commands

    def obey(self) -> None:
        line = self.line
        while line.commands:
            commands, line.commands = line.commands, []
            for command in commands:
                if self.loses:
                    self.loses = False
                    self.tear()
                elif isinstance(command, Serve):
                    self.decided(command.caller)
                elif isinstance(command, Connect):
                    self.begin_connect(command.place)
                elif isinstance(command, Close):
                    self.begin_close(command.place, command.reason)
                elif isinstance(command, Ping):
                    self.begin_ping(command.place)
                elif isinstance(command, WakeAt):
                    soon = self.world.now + REVIEW
                    self.wake(min(command.when, soon) if self.queue else command.when)
                else:
                    raise Broken(f"unknown command {command}")

    def tick(self, when: float) -> None:
        if when == self.tick_at:
            self.tick_at = NEVER
            self.mend()
            if not self.tell(self.line.tick, self.world.now):
                self.wake(self.world.now + REVIEW)  # the second timer
                return
            lost = self.loses and self.line.commands
            self.obey()
            if lost:
                self.wake(self.world.now + REVIEW)
                return
            self.torn_at = None
            if self.queue and not self.world.now <= self.tick_at <= self.world.now + 2 * REVIEW:
                self.wake(self.world.now + REVIEW)
            if self.line.disposed and self.line.places and self.tick_at == NEVER:
                self.wake(self.world.now + LAST_LOOKS)

    def decided(self, caller: Caller) -> None:
        if self.torn_at is not None:
            if caller in self.queue:
                self.queue.remove(caller)
                if caller.place is not None and caller.place.state is State.CONNECTING:
                    self.connect_here(caller, caller.place)
                elif caller.place is not None:
                    self.served.append(caller)
                    self.world.at(self.world.now, self.awake, caller)
            return
        if caller not in self.queue:
            raise Broken("somebody is served who does not wait")
        head = self.queue[-1] if caller.error is Refusal.FULL else self.queue[0]
        if caller is not head:
            raise Broken("not served in the order of arrival")
        if (caller.place is None) == (caller.error is None):
            raise Broken("neither a connection nor an error, or both")
        if caller.error is Refusal.FULL and (most := self.rules.max_waiting) is not None and len(self.queue) <= most:
            raise Broken("refused although the line is not full")
        if caller.error is Refusal.SHED:
            self.check_shed(caller)
        self.queue.remove(caller)
        if caller.place is not None and caller.place.state is State.CONNECTING:
            self.connect_here(caller, caller.place)
        elif caller.place is not None:
            if self.rules.queue_target is not None and self.world.now - caller.arrived <= self.rules.queue_target:
                self.served_soon = self.world.now
            if caller.place in self.invalid or self.world.now >= caller.place.connection.expires:
                raise Broken("an invalidated connection is lent")
            self.served.append(caller)
            self.world.at(self.world.now, self.awake, caller)

    def check_shed(self, caller: Caller) -> None:
        target, now = self.rules.queue_target, self.world.now
        if target is None or now - caller.arrived <= 2 * target:
            raise Broken("somebody is dropped who has not waited for long")
        if now - self.served_soon < 10 * target and not self.struck:  # a dead caller may have stood in the line
            raise Broken("somebody is dropped although the line does not stand")
        if len(self.queue) == 1:
            raise Broken("the last one is dropped")

    def awake(self, caller: Caller) -> None:
        if caller in self.served:
            self.served.remove(caller)
            assert caller.place is not None
            self.use(caller, caller.place)

    def use(self, caller: Caller, place: Place) -> None:
        """The caller has the connection, checks it, and works with it or asks again."""
        world = self.world
        if place.state is not State.LENT or place in self.holders or place in self.checking:
            raise Broken("a connection is lent twice")
        if place.connection.pinned:
            raise Broken("the parent's connection is lent in the child")
        unfit = self.line.why_unfit(place, world.now) or ("ping" if place.connection.dead else None)
        if unfit is None:
            self.holders.append(place)
            return
        if world.now >= caller.deadline:
            self.end(place)
            self.tell(self.line.lost, place, world.now)
            return
        self.queue.insert(0, caller)
        if not self.tell(self.line.ask_again, caller, place, unfit, world.now):
            self.queue.remove(caller)
            return
        self.waits(caller)

    def begin_connect(self, place: Place) -> None:
        if place.state is not State.CONNECTING or place in self.connecting:
            raise Broken("a place is connected in twice")
        most = self.rules.connects_at_once if self.line.warm else 1
        if self.torn_at is None and len(self.connecting) >= most and not self.rules.callers_connect:
            raise Broken("too many connects at once")
        self.connecting.add(place)
        took, error, transient = self.world.server.outcome()
        self.world.at(self.world.now + took, self.end_connect, place, error, transient)

    def end_connect(self, place: Place, error: BaseException | None, transient: bool) -> None:
        if place not in self.connecting:
            return  # in the parent, before the fork
        self.connecting.remove(place)
        if error is not None:
            self.tell(self.line.connect_failed, place, error, transient=transient, now=self.world.now)
            return
        place.connection = Connection(self.world.now + LIFETIME)
        self.world.server.connections.append(place.connection)
        self.tell(self.line.connected, place, self.world.now, place.connection.expires)

    def connect_here(self, caller: Caller, place: Place) -> None:
        """A caller connects, on its own thread."""
        if not caller.connects:
            raise Broken("a caller connects that has no time for it")
        if not self.rules.callers_connect and (self.line.warm or self.connecting):
            raise Broken("a caller connects that is not the first")
        self.connecting.add(place)
        took, error, _ = self.world.server.outcome()
        self.world.at(self.world.now + took, self.connected_here, caller, place, error)

    def callers_connect(self) -> bool:
        return any(place.by_caller for place in self.connecting)

    def connected_here(self, caller: Caller, place: Place, error: BaseException | None) -> None:
        if place not in self.connecting:
            return  # in the parent, before the fork
        self.connecting.remove(place)
        if error is not None:
            self.tell(self.line.leave, caller, self.world.now)
            return
        place.connection = Connection(self.world.now + LIFETIME)
        self.world.server.connections.append(place.connection)
        if self.tell(self.line.connected, place, self.world.now, place.connection.expires):
            self.use(caller, place)

    def begin_ping(self, place: Place) -> None:
        self.checking.add(place)
        took = 0.002 if not place.connection.dead else PING_LIMIT
        self.world.at(self.world.now + took, self.end_ping, place)

    def end_ping(self, place: Place) -> None:
        if place in self.checking:
            self.checking.remove(place)
            self.tell(self.line.checked, place, alive=not place.connection.dead, now=self.world.now)

    def begin_close(self, place: Place, reason: str) -> None:
        if self.struck and not place.connection.open:  # its closer was struck before it reported that
            self.line.closed(place, self.world.now)
            return
        if place in self.closing or not place.connection.open:
            raise Broken("a connection is closed twice")
        if place in self.holders:
            raise Broken("a connection is closed in use")
        self.closing.add(place)
        if reason == "ping":  # nobody on the other side to take leave of
            self.end_close(place)
        else:
            self.world.at(self.world.now + (CLOSE_LIMIT if place.connection.dead else 0.001), self.end_close, place)

    def end_close(self, place: Place) -> None:
        if place in self.closing:
            self.closing.remove(place)
            self.end(place)
            self.tell(self.line.closed, place, self.world.now)

    def end(self, place: Place) -> None:
        if place.connection.pinned:
            raise Broken("a child has ended the parent's connection")
        if not place.connection.open:
            raise Broken("a connection is closed twice")
        place.connection.open = False

    # -- the promises

    def check(self) -> None:
        line, rules = self.line, self.rules
        if line.open > rules.limit:
            raise Broken(f"{line.open} connections, and at most {rules.limit} are allowed")
        if self.torn_at is not None:
            if self.queue and self.world.now > max(self.torn_at, self.queue[0].arrived) + 3 * REVIEW:
                raise Broken("somebody waits, and nobody looks what an interrupt has left")
            return
        counted = len(self.connecting) + len(self.checking) + len(self.closing) + len(line.idle)
        counted += len(self.holders) + len(self.served)
        if line.open != counted:
            raise Broken(f"{counted} places are taken, and {line.open} are counted")
        if line.connecting != len(self.connecting):
            raise Broken(f"{len(self.connecting)} connects are under way, and {line.connecting} are counted")
        if len(line.callers) != len(self.queue):
            raise Broken(f"{len(self.queue)} wait, and {len(line.callers)} are in the line")
        if line.disposed and line.idle:
            raise Broken("a connection rests in a disposed pool")
        if not self.invalid.isdisjoint(line.idle):  # the short way out does not look at it again
            raise Broken("an invalidated connection rests")
        if self.queue:
            self.check_waiting()

    def check_waiting(self) -> None:
        line = self.line
        if list(line.callers) != self.queue:
            raise Broken("not those stand in the line who wait")
        if line.idle:
            raise Broken("somebody waits although a connection is idle")
        if self.rules.queue_target is not None and line.in_use >= self.rules.limit and self.tick_at == NEVER:
            raise Broken("somebody waits, and nobody will look whether the line stands")
        if self.queue[0].deadline < self.world.now:
            raise Broken("somebody waits beyond the deadline")
        retries = (
            line.trouble is not None and self.tick_at != NEVER and self.world.now - REVIEW <= line.retry_at < NEVER
        )
        if not line.connecting and line.open < self.rules.limit and not retries:
            raise Broken("somebody waits, a place is free, and nobody connects or will try again")
        useful = min(self.rules.connects_at_once, len(self.queue), self.rules.limit - line.open + line.connecting)
        if line.warm and line.trouble is None and line.connecting < useful and not self.rules.callers_connect:
            raise Broken("somebody waits, a place is free, and fewer connects than useful are under way")


class World:
    """The clock, the server, the pools, and what is going to happen."""

    def __init__(self, rules: Rules, kind: type[Line] = Line) -> None:
        self.now = 100.0
        self.kind = kind
        self.heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.numbers = 0
        self.events = 0
        self.server = Server()
        self.pools = [Pool(self, rules)]

    def at(self, when: float, what: Callable[..., None], *about: Any) -> None:
        self.numbers += 1
        heapq.heappush(self.heap, (max(when, self.now), self.numbers, what, about))

    def advance(self, until: float) -> None:
        while self.heap and self.heap[0][0] <= until:
            self.events += 1
            if self.events > MOST_EVENTS:
                raise Broken("it never comes to rest")
            when, _, what, about = heapq.heappop(self.heap)
            self.now = max(self.now, when)
            what(*about)
            self.settle()
        self.now = max(self.now, until)

    def settle(self) -> None:
        for pool in self.pools:
            if pool.line.commands:
                pool.obey()
        for pool in self.pools:
            pool.check()

    def step(self, kind: str, pick: int) -> None:
        pool = self.pools[-1]
        if kind == "ask":
            pool.ask()
        elif kind == "give back":
            self.pools[pick % len(self.pools)].give_back(pick)
        elif kind == "cancel":
            self.pools[pick % len(self.pools)].cancel(pick)
        elif kind == "vanish":
            self.pools[pick % len(self.pools)].vanish(pick)
        elif kind == "wait":
            self.advance(self.now + 0.1 * pick)
        elif kind == "invalidate":
            pool.invalidate()
        elif kind == "condemn":
            pool.condemn(pick)
        elif kind == "strike":
            pool.fuse = pick
        elif kind == "lose":
            pool.loses = True
        elif kind == "drop":
            self.pools[pick % len(self.pools)].drop(pick)
        elif kind == "abandon":
            self.pools[pick % len(self.pools)].abandon(pick)
        elif kind == "dispose":
            pool.dispose()
            self.pools.append(Pool(self, pool.rules))
        elif kind == "fork":
            self.pools = [pool]
            pool.fork()
        elif kind == "restart":
            for connection in self.server.connections:
                connection.dead = True
        elif kind == "suspend":
            self.now += 3600.0  # no timer has run meanwhile: all are late
            for each in self.pools:
                each.torn_at = None if each.torn_at is None else self.now
                for caller in list(each.queue):
                    each.expire(caller)
        else:
            self.server.mode = kind
        self.settle()

    def end(self) -> None:
        """Let everything come to its end, and look for what is left."""
        self.server.mode = "up"
        for _ in range(1000):
            for pool in self.pools:
                if pool.holders:
                    pool.give_back(0)
            self.settle()
            self.advance(self.now + 0.05)
            if not any(pool.queue or pool.served or pool.holders or pool.callers_connect() for pool in self.pools):
                break
        else:
            raise Broken("somebody waits for ever")
        self.pools[-1].dispose()
        self.settle()
        self.advance(self.now + TIMEOUT + CONNECT_LIMIT + CLOSE_LIMIT)
        for pool in self.pools:
            if pool.line.open or pool.line.callers or pool.line.idle:
                raise Broken(f"{pool.line.open} places are left at the end")
        if any(connection.open and not connection.pinned for connection in self.server.connections):
            raise Broken("a connection is left open at the end")


def run(schedule: Schedule, kind: Kind = Line) -> None:
    """Run a schedule.

    Raises:
        Broken: a promise was not kept.
    """
    if issubclass(kind, FairPool):
        with ThreadWorld(schedule.rules, kind) as threads:
            _run(schedule, threads)
    else:
        _run(schedule, World(schedule.rules, kind))


def _run(schedule: Schedule, world: World | ThreadWorld) -> None:
    for pause, name, pick in schedule.steps:
        if pause:
            world.advance(world.now + pause)
        world.step(name, pick)
    world.end()


def failure(schedule: Schedule, kind: Kind = Line) -> BaseException | None:
    try:
        run(schedule, kind)
    except Exception as error:  # a mistake of the line may show as any error
        return error
    return None


def shrink(schedule: Schedule, kind: Kind = Line) -> Schedule:
    """Return a short schedule that still fails: without steps, then without pauses and rules, that do not matter."""
    steps = list(schedule.steps)
    size = max(1, len(steps) // 2)
    while size:
        start = 0
        while start < len(steps):
            fewer = steps[:start] + steps[start + size :]
            if failure(Schedule(schedule.rules, tuple(fewer)), kind) is not None:
                steps = fewer
            else:
                start += size
        size //= 2
    for number, (pause, name, pick) in enumerate(steps):
        for simpler in ((0.0, name, 0), (pause, name, 0), (0.0, name, pick)):
            tried = [*steps[:number], simpler, *steps[number + 1 :]]
            if failure(Schedule(schedule.rules, tuple(tried)), kind) is not None:
                steps = tried
                break
    rules = schedule.rules
    for name, value in vars(Rules()).items():
        if name not in ("size", "limit"):
            simpler_rules = replace(rules, **{name: value})
            if failure(Schedule(simpler_rules, tuple(steps)), kind) is not None:
                rules = simpler_rules
    return Schedule(rules, tuple(steps))


def first_failure(seeds: range, kind: Kind = Line) -> int | None:
    """Run the schedules of these seeds; return the first that fails."""
    for seed in seeds:
        if failure(draw(seed), kind) is not None:
            return seed
    return None


def report(seed: int, kind: Kind = Line) -> str:
    """Return the shortest form of a failing schedule, as a program, with its error."""
    schedule = shrink(draw(seed), kind)
    return f"seed {seed}: {failure(schedule, kind)!r}\n\n{schedule.script()}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Drive the waiting line through random schedules.")
    parser.add_argument("--schedules", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0, help="the first one (default: 0)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", action="store_true", help="drive the pool of threads, and not the line")
    options = parser.parse_args()
    kind: Kind = FairPool if options.threads else Line
    began, size = time.perf_counter(), 500 if options.threads else 5_000
    parts = [
        range(begin, min(begin + size, options.seed + options.schedules))
        for begin in range(options.seed, options.seed + options.schedules, size)
    ]
    with ProcessPoolExecutor(options.processes) as executor:
        for number, found in enumerate(executor.map(first_failure, parts, [kind] * len(parts)), 1):
            if found is not None:
                executor.shutdown(cancel_futures=True)
                print(report(found, kind))
                return 1
            if number % 10 == 0:
                print(f"{number * size:,} schedules", file=sys.stderr)
    took = time.perf_counter() - began
    print(
        f"{options.schedules:,} schedules in {took:.0f} s, {options.schedules / took:,.0f} a second: all promises kept"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
