"""The pool of threads in a world with a virtual clock: its threads are greenlets, its lock and its waits are simulated.

A thread may be preempted before any section under the pool's lock, and wherever the pool waits for something. Which one
runs next is drawn by lot, from a seed.
"""

from __future__ import annotations

import contextlib
import gc
import heapq
import logging
import random
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

from greenlet import getcurrent, greenlet
from sqlalchemy import event

from dbconfig.engine.pool import connecting, forks, idle, judgements, thread_places, threads
from dbconfig.engine.pool.options import Connected, LineOptions
from dbconfig.engine.pool.place import NEVER, Rules
from dbconfig.engine.pool.sockets import Verdict
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

PREEMPTED = 0.3  # of the sections under a lock
NO_THREAD = 0.02  # of the threads that the system does not start
INLINE = 0.2  # of the pools, which connect on their callers' threads, as for SQLite
MOST_STRIKES = 2  # of signals, at one thread
TRUST = 0.02
LATE = 0.001  # seconds: what a virtual clock's sums may differ by


class Interrupt(BaseException):
    """What Ctrl-C raises."""


class Judge:
    full = 0

    def connects_again(self, error: BaseException) -> bool:
        return isinstance(error, TimeoutError | ConnectionError)

    def ends_connection(self, error: BaseException) -> bool:
        return False

    def refuses_writes(self, error: BaseException) -> bool:
        return False

    def read_only_because(self, connected: Connected) -> str:
        return ""


class Wire:
    """A driver's connection, of which each call takes its time. It ends with its object, as sockets do."""

    def __init__(self, world: ThreadWorld) -> None:
        self.world = world
        self.at = Connection(world.now + LIFETIME)
        world.server.connections.append(self.at)

    def rollback(self) -> None:
        self.touch()
        if self.at.dead:
            raise ConnectionResetError("closed by the server")

    def close(self) -> None:
        self.touch()
        self.at.open = False
        self.world.sleep(CLOSE_LIMIT if self.at.dead else 0.001)

    def touch(self) -> None:
        if self.at.pinned:
            raise self.world.fail("a child has used the parent's connection")
        if not self.at.open:
            raise self.world.fail("a connection is used after its end")

    def __del__(self) -> None:
        self.at.open = False


class Lock:
    """The pool's lock. Nobody waits for anything while it is held; before it is taken others may run."""

    def __init__(self, world: ThreadWorld) -> None:
        self.world = world
        self.owner: Any = None
        self.depth = 0

    def __enter__(self) -> None:
        me = getcurrent()
        if self.owner is not me:
            self.world.preempt()
            if self.owner is not None:
                raise Broken("a thread waits while it holds the lock")
            self.owner = me
        self.depth += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1
        if not self.depth:
            try:
                self.world.check_promises(self)
            finally:
                self.owner = None

    def _is_owned(self) -> bool:
        return self.owner is getcurrent()


class Gate:
    """What a waiter waits at. It begins open, and is closed by the first who takes it, as a lock."""

    def __init__(self, world: ThreadWorld) -> None:
        self.world = world
        self.closed = False
        self.waiter: Thread | None = None

    def locked(self) -> bool:
        return self.closed

    def acquire(self, timeout: float = -1) -> bool:
        if not self.closed:
            self.closed = True
            return True
        if timeout <= 0:
            return False
        world = self.world
        self.waiter = world.current()
        try:
            world.sleep(timeout)
        finally:
            self.waiter = None
        opened, self.closed = not self.closed, True
        return opened

    def release(self) -> None:
        self.closed = False
        if self.waiter is not None:
            self.world.wake(self.waiter)


class Queue(OrderedDict[Any, None]):
    """The waiters of a pool, each with a number that says when its turn is."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.turns: dict[Any, int] = {}

    def __setitem__(self, waiter: Any, value: None) -> None:
        self.number += 1
        self.turns[waiter] = self.number
        super().__setitem__(waiter, value)

    def move_to_end(self, waiter: Any, last: bool = True) -> None:
        super().move_to_end(waiter, last)
        if not last:
            self.number += 1
            self.turns[waiter] = -self.number

    def popitem(self, last: bool = True) -> Any:
        served, _ = found = super().popitem(last)
        if any(self.turns[other] < self.turns[served] for other in self):
            raise Broken("not served in the order of arrival")
        return found


class Thread:
    """One of the simulated threads."""

    def __init__(self, world: ThreadWorld, work: Callable[[], object], *, helps: bool = False) -> None:
        self.world = world
        self.work = work
        self.helps = helps
        self.nap = 0  # the number of its sleep: who wakes it from another comes too late
        self.sleeps = False
        self.struck = 0  # times by a signal
        self.greenlet = greenlet(self.run, world.main)

    def run(self) -> None:
        try:
            self.work()
        except Interrupt:
            pass
        finally:
            self.world.threads.discard(self)


class Client(Thread):
    """A thread that wants a connection, and keeps it until told otherwise."""

    def __init__(self, world: ThreadWorld, pool: FairPool) -> None:
        super().__init__(world, self.ask)
        self.pool = pool
        self.latest = world.now + TIMEOUT
        self.fairy: Any = None

    def ask(self) -> None:
        try:
            fairy = self.pool.connect()
        except Interrupt as error:
            self.forget(error)
        except Broken:
            raise
        except Exception as error:
            self.forget(error)
        else:
            self.fairy = fairy
            self.world.lent(self)
        if self.world.now > self.latest + LATE:
            raise Broken("somebody waits beyond the deadline")

    def forget(self, error: BaseException | None) -> None:
        while error is not None:  # the frames of its traceback would keep what the caller held
            error.__traceback__ = None
            before, error.__context__ = error.__context__, None
            error = before


class Starter:
    """What the pool takes for `threading.Thread`."""

    def __init__(self, world: ThreadWorld, target: Any, args: Any, **_: Any) -> None:
        self.world = world
        self.work = lambda: target(*args)

    def start(self) -> None:
        if self.world.pick.random() < NO_THREAD:
            raise RuntimeError("can't start new thread")
        self.world.spawn(Thread(self.world, self.work, helps=True))


class Caretaker:
    """What the pool takes for its caretaker: jobs that run when they are due."""

    def __init__(self, world: ThreadWorld) -> None:
        self.world = world
        self.jobs: dict[object, Any] = {}

    def add(self, key: object, job: Any, delay: float) -> None:
        self.jobs[key] = job
        self.world.at(self.world.now + delay, self.begin, key, job)

    def remove(self, key: object) -> None:
        self.jobs.pop(key, None)

    def begin(self, key: object, job: Any) -> None:
        if self.jobs.get(key) is job:
            self.world.spawn(Thread(self.world, lambda: self.run(key, job)))

    def run(self, key: object, job: Any) -> None:
        delay = job()
        if self.jobs.get(key) is job and delay is not None:
            self.add(key, job, delay)


class Check:
    """What the pool takes for its look at a connection that has rested."""

    trust = TRUST

    def __init__(self, world: ThreadWorld) -> None:
        self.world = world

    def of_record(self, dialect: Any, of: Any, now: float, deadline: float) -> Verdict:
        return self.world.ping(dialect, of.dbapi_connection, of.dbapi_connection, deadline - self.world.now)


class ThreadWorld:
    """The clock, the server, the pools, their threads, and what is going to happen."""

    def __init__(self, rules: Rules, kind: type[FairPool]) -> None:
        self.now = 100.0
        self.rules = rules
        self.kind = kind
        self.pick = random.Random(repr(rules))
        self.main = getcurrent()
        self.heap: list[tuple[float, float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.numbers = 0
        self.events = 0
        self.threads: set[Thread] = set()
        self.holders: list[Client] = []
        self.clients: list[Client] = []  # who wait, in the order in which they came
        self.ghosts: list[Any] = []  # threads and loans of the parent, after a fork
        self.server = Server()
        self.connects: dict[Thread, None] = {}  # who connects
        self.caretaker = Caretaker(self)
        self.marks: list[list[int]] = []
        self.broken: Broken | None = None  # somebody may catch it on its way
        self.stack = contextlib.ExitStack()
        self.records: weakref.WeakSet[Any] = weakref.WeakSet()
        self.invalidated: dict[FairPool, tuple[float, int]] = {}  # when the last one had ended, and what it ended

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:  # which undoes all of it if there is a mistake in it
            self._replace(stack)
            self.pools = [self.make()]
            self.stack = stack.pop_all()
        return self

    def _replace(self, stack: contextlib.ExitStack) -> None:
        replaced = {
            threads: {
                "monotonic": self.clock,
                "RLock": self.new_lock,
                "Lock": lambda: Gate(self),
            },
            thread_places: {"monotonic": self.clock, "RLock": self.new_lock, "garbage": self},
            connecting: {"monotonic": self.clock, "Thread": self.starter, "time": self},
            judgements: {"chance": self.pick},
            idle: {"monotonic": self.clock, "caretaker": self.caretaker, "ping": self.ping, "Look": self},
            forks: {"mark": self.mark, "pin": self.pin},
        }
        for module, names in replaced.items():
            for name, value in names.items():
                stack.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, value)
        level = logging.getLogger("sqlalchemy.pool").level
        logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
        stack.callback(logging.getLogger("sqlalchemy.pool").setLevel, level)
        hook = sys.unraisablehook
        sys.unraisablehook = lambda _: None  # Python would print what strikes at the end of an object
        stack.callback(setattr, sys, "unraisablehook", hook)
        gc.disable()  # it would strike at another moment each time
        stack.callback(gc.enable)

    def __exit__(self, *_: object) -> None:
        self.broken = self.broken or Broken("over")  # whatever is found from here on does not count
        for mark in self.marks:
            mark[0] = 0  # as after a fork: no place and no connection goes back any more
        for made in list(self.records):
            made.fairy_ref = None
        for thread in [*self.threads, *self.ghosts]:
            if isinstance(thread, Thread) and thread.greenlet:
                with contextlib.suppress(BaseException):
                    thread.greenlet.throw()
        forks.connects.forget()
        self.stack.close()

    def make(self) -> FairPool:
        rules = self.rules
        options = LineOptions(
            max_waiting=rules.max_waiting,
            queue_target=rules.queue_target,
            check=Check(self),  # type: ignore[arg-type]  # for what is asked of it
            min_idle=rules.min_idle,
            idle_timeout=rules.idle_timeout,
            keepalive=rules.keepalive,
            judge=Judge(),
            patient=rules.patient,
        )
        pool = self.kind(
            self.connect,
            line=options,
            pool_size=int(rules.size),
            max_overflow=int(rules.limit - rules.size),
            timeout=TIMEOUT,
            use_lifo=rules.lifo,
        )
        pool.line.rules = replace(pool.line.rules, callers_connect=self.pick.random() < INLINE)
        event.listen(pool, "connect", self.connected)
        return self.furnish(pool)

    def furnish(self, pool: FairPool) -> FairPool:
        pool.waiters = pool.line.callers = Queue()
        return pool

    # -- what the pool takes for the world

    def clock(self) -> float:
        return self.now

    def new_lock(self) -> Lock:
        return Lock(self)

    def starter(self, target: Any, args: Any = (), **given: Any) -> Starter:
        return Starter(self, target, args, **given)

    def collect(self, left: float) -> None:
        """The garbage has been collected."""

    def mark(self) -> list[int]:
        self.marks.append([1])
        return self.marks[-1]

    def pin(self, inherited: list[Any]) -> None:
        self.ghosts.append(inherited)

    def at(self, when: Any, *what: Any) -> Any:
        """Do this at a time; for who asks as of `Look`, know nothing."""
        if not isinstance(when, float):
            return None
        self.numbers += 1
        heapq.heappush(self.heap, (max(when, self.now), self.pick.random(), self.numbers, what[0], what[1:]))
        return None

    def connect(self) -> Wire:
        took, error, _ = self.server.outcome()
        thread = self.current()
        if not thread.helps and isinstance(thread, Client):
            thread.latest = max(thread.latest, self.now + took)  # only the driver's limits end it
        self.connects[thread] = None
        try:
            self.check_connects()
            self.sleep(took)
        finally:
            self.connects.pop(thread, None)
        if error is not None:
            raise error
        return Wire(self)

    def connected(self, connection: Wire, made: Any) -> None:
        made.expires = connection.at.expires
        self.records.add(made)

    def ping(self, dialect: Any, connection: Wire, under: Any, limit: float) -> Verdict:
        connection.touch()
        self.sleep(min(max(limit, 0.0), PING_LIMIT) if connection.at.dead else 0.002)
        return Verdict.SILENT if connection.at.dead else Verdict.ALIVE

    # -- threads

    def spawn(self, thread: Thread) -> None:
        self.threads.add(thread)
        self.at(self.now, self.resume, thread, 0)

    def current(self) -> Thread:
        me = getcurrent()
        return next(thread for thread in self.threads if thread.greenlet is me)

    def sleep(self, seconds: float) -> None:
        """Let others run for so long, or until somebody wakes this thread."""
        if getcurrent() is self.main:
            return
        if self.broken is not None:
            raise self.broken
        if any(pool.lock._is_owned() for pool in self.pools):
            raise self.fail("a thread waits while it holds the lock")
        thread = self.current()
        thread.nap += 1
        thread.sleeps = True
        self.at(self.now + float(seconds), self.resume, thread, thread.nap)
        try:
            self.main.switch()
        finally:
            thread.sleeps = False

    def preempt(self) -> None:
        if getcurrent() is self.main or self.broken is not None or self.pick.random() >= PREEMPTED:
            return
        if not any(pool.lock._is_owned() for pool in self.pools):  # else the end of an object, in a section
            self.sleep(0.0)

    def wake(self, thread: Thread) -> None:
        self.at(self.now, self.resume, thread, thread.nap)

    def resume(self, thread: Thread, nap: int) -> None:
        if thread in self.threads and thread.nap == nap:
            thread.nap += 1
            thread.greenlet.switch()

    def interrupt(self, thread: Thread) -> None:
        """A signal strikes a thread that waits for something."""
        if thread.sleeps and thread.struck < MOST_STRIKES:
            thread.struck += 1
            thread.nap += 1
            thread.greenlet.throw(Interrupt)

    def lent(self, client: Client) -> None:
        self.clients.remove(client)
        self.holders.append(client)
        lent = client.fairy._connection_record
        if sum(each.fairy._connection_record is lent for each in self.holders) > 1:
            raise self.fail("a connection is lent twice")
        if client.fairy.dbapi_connection.at.pinned:
            raise self.fail("the parent's connection is lent in the child")
        ended, generation = self.invalidated.get(client.pool, (NEVER, 0))
        if lent.generation < generation and lent.lent_at > ended:
            raise self.fail("an invalidated connection is lent")

    # -- what happens

    def advance(self, until: float) -> None:
        while self.heap and self.heap[0][0] <= until:
            self.events += 1
            if self.events > MOST_EVENTS:
                raise Broken("it never comes to rest")
            when, _, _, what, about = heapq.heappop(self.heap)
            self.now = max(self.now, when)
            what(*about)
            if self.broken is not None:
                raise self.broken
            if not self.heap or self.heap[0][0] > self.now:
                self.check_at_rest()
        self.now = max(self.now, until)

    def act(self, work: Callable[[], object]) -> None:
        self.spawn(Thread(self, work))

    def step(self, kind: str, pick: int) -> None:
        pool = self.pools[-1]
        if kind == "ask":
            client = Client(self, pool)
            self.clients.append(client)
            self.spawn(client)
        elif kind in ("give back", "vanish", "condemn"):
            if self.holders:
                self.part(self.holders.pop(pick % len(self.holders)), kind, pick)
        elif kind == "cancel":
            waiting = [client for client in self.clients if client.sleeps]
            if waiting:
                client = waiting[pick % len(waiting)]
                self.interrupt(client)
        elif kind == "wait":
            self.advance(self.now + 0.1 * pick)
        elif kind == "invalidate":
            self.act(lambda: self.invalidate(pool))
        elif kind == "dispose":
            self.pools.append(self.furnish(pool.recreate()))
            self.pools[-1].line.rules = pool.line.rules
            self.act(pool.dispose)
        elif kind == "fork":
            self.fork(pool)
        elif kind == "restart":
            for connection in self.server.connections:
                connection.dead = True
        elif kind == "suspend":
            self.now += 3600.0  # nobody has run meanwhile: all are late
            for client in self.clients:
                client.latest = NEVER
        elif kind in ("strike", "lose", "drop", "abandon"):
            return  # of the line of asyncio; here a cancellation is an interrupt
        else:
            self.server.mode = kind
        if pick % 4:  # else the next thing happens before this one is over
            self.advance(self.now)

    def part(self, client: Client, kind: str, pick: int) -> None:
        fairy, client.fairy = client.fairy, None
        if kind == "give back":
            self.act(fairy.close)
        elif kind == "condemn":

            def condemn() -> None:
                fairy.invalidate(soft=True)
                fairy.close()

            self.act(condemn)
        elif pick % 2:
            self.act(fairy.invalidate)
        else:
            held = [fairy]
            self.act(held.clear)  # it was never given back

    def invalidate(self, pool: FairPool) -> None:
        generation = pool.generation + 1
        pool.invalidate_all()
        self.invalidated[pool] = self.now, generation

    def fork(self, pool: FairPool) -> None:
        """Go on in the child: nobody is there but the one who forked, who holds nothing."""
        self.pools = [pool]
        self.ghosts += [*self.threads, *self.holders]
        self.threads.clear()
        self.heap.clear()
        for group in (self.holders, self.clients):
            group.clear()
        for connection in self.server.connections:
            connection.pinned = True
        for mark in self.marks:
            mark[0] = 0
        self.connects.clear()
        self.caretaker.jobs.clear()
        forks.connects.forget()
        pool._start_afresh()

    def end(self) -> None:
        """Let everything come to its end, and look for what is left."""
        self.server.mode = "up"
        for _ in range(1000):
            while self.holders:
                self.part(self.holders.pop(), "give back", 0)
            self.advance(self.now + 0.05)
            if not self.clients and not self.holders:
                break
        else:
            raise Broken("somebody waits for ever")
        self.act(self.pools[-1].dispose)
        # A helper keeps its place until its next attempt, for which nobody waits any more.
        self.advance(self.now + TIMEOUT + CONNECT_LIMIT + CLOSE_LIMIT + 1.25 * judgements.RETRY_REFUSED)
        for pool in self.pools:
            if pool.open or pool.waiters or pool.idle:
                raise Broken(f"{pool.open} places are left at the end")
        if any(connection.open and not connection.pinned for connection in self.server.connections):
            raise Broken("a connection is left open at the end")
        if self.threads:
            raise Broken("a thread never ends")

    # -- the promises

    def fail(self, message: str) -> Broken:
        self.broken = self.broken or Broken(message)
        return self.broken

    def check_promises(self, lock: Lock) -> None:
        """Look at a pool whose lock becomes free."""
        for pool in self.pools:
            if pool.lock is not lock:
                continue
            if pool.waiters and pool.idle:
                self.fail("somebody waits although a connection is idle")
            if pool.open > pool.limit:
                self.fail(f"{pool.open} connections, and at most {pool.limit} are allowed")
            if not 0 <= pool.connecting <= pool.open:
                self.fail(f"{pool.open} places are taken, {pool.connecting} of them for connects")

    def check_connects(self) -> None:
        # A caller that connects on its own thread, because none is free, is not counted.
        if len(self.pools) == 1 and sum(each.helps for each in self.connects) > self.rules.connects_at_once:
            raise self.fail("too many connects at once")

    def check_at_rest(self) -> None:
        """Look at the pools while everybody sleeps."""
        self.clients = [client for client in self.clients if client in self.threads]
        open_ones = sum(connection.open and not connection.pinned for connection in self.server.connections)
        # What is being closed keeps its place until it is.
        closing = sum(pool.open for pool in self.pools) - sum(pool.connecting for pool in self.pools) - open_ones
        if closing < 0:
            raise Broken("a connection is open that is not counted")
        for pool in self.pools:
            if not pool.waiters or pool.open >= pool.limit or pool.connecting:
                continue
            if pool.line.trouble is None or pool.line.retry_at == NEVER:
                raise Broken("somebody waits, a place is free, and nobody connects or will try again")
