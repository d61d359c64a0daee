"""Any interleaving of what can happen to the line keeps its promises: no slot is lost, no waiter forgotten."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import exc

from dbconfig.engine.pool.record import Record
from dbconfig.engine.pool.threads import FairPool
from tests.engine.pool.support import FakeServer, eventually, fair_pool


class Interrupt(BaseException):
    """As KeyboardInterrupt, but pytest does not stop for it."""


class Caller(threading.Thread):
    """A thread that wants a connection and keeps it until told otherwise."""

    def __init__(self, pool: FairPool) -> None:
        super().__init__(daemon=True)
        self.pool = pool
        self.connection: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.connection = self.pool.connect()
        except BaseException as error:
            error.__traceback__ = None  # its frames would keep what the caller held
            error.__context__ = None
            self.error = error

    @property
    def settled(self) -> bool:
        return not self.is_alive()


class Line(RuleBasedStateMachine):
    """The pool against a model: who holds what, who waits, how many places there are."""

    @initialize(
        size=st.integers(1, 3),
        overflow=st.integers(0, 2),
        lifo=st.booleans(),
        warm=st.booleans(),
    )
    def make(self, size: int, overflow: int, lifo: bool, warm: bool) -> None:
        self.limit = size + overflow
        self.server = FakeServer()
        self.pool = fair_pool(self.server, pool_size=size, max_overflow=overflow, timeout=20.0, use_lifo=lifo)
        self.pools = [self.pool]
        self.holders: list[Caller] = []
        self.waiters: list[Caller] = []
        if warm:
            self.pool.connect().close()

    def settle(self) -> None:
        """Wait until everybody who can be served is served."""
        assert eventually(self._at_rest, within=3.0), self._state()
        for caller in [*self.waiters]:
            if caller.settled:
                self.waiters.remove(caller)
                if caller.connection is not None:
                    self.holders.append(caller)

    def _at_rest(self) -> bool:
        for pool in self.pools:
            waiting = sum(not w.settled for w in self.waiters if w.pool is pool)
            with pool.lock:
                if len(pool.waiters) != waiting or pool.connecting:
                    return False
                if pool.waiters and (pool.idle or pool.open < pool.limit):
                    return False
        return True

    def _state(self) -> str:
        return "; ".join(
            f"open {p.open} connecting {p.connecting} idle {len(p.idle)} waiters {len(p.waiters)} "
            f"trouble {p.line.trouble!r}"
            for p in self.pools
        )

    @rule()
    def get(self) -> None:
        if len(self.waiters) >= 4:
            return
        caller = Caller(self.pool)
        self.waiters.append(caller)
        caller.start()
        self.settle()

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        caller = self.holders.pop(data.draw(st.integers(0, len(self.holders) - 1)))
        expected = next((w for w in self.waiters if w.pool is caller.pool), None)
        caller.connection.close()
        caller.connection = None
        self.settle()
        assert expected is None or expected in self.holders, "the one who has waited longest is served first"

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), soft=st.booleans())
    def invalidate(self, data: st.DataObject, soft: bool) -> None:
        caller = self.holders.pop(data.draw(st.integers(0, len(self.holders) - 1)))
        caller.connection.invalidate(soft=soft)
        if soft:
            caller.connection.close()
        caller.connection = None
        self.settle()

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        """Drop the last reference to a connection that was never closed."""
        caller = self.holders.pop(data.draw(st.integers(0, len(self.holders) - 1)))
        caller.connection = None
        gc.collect(0)
        self.settle()

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        caller = self.holders.pop(data.draw(st.integers(0, len(self.holders) - 1)))
        caller.connection.detach()
        caller.connection.close()
        caller.connection = None
        self.settle()

    @precondition(lambda self: not self.waiters)
    @rule(error=st.sampled_from([ValueError("wrong password"), Interrupt("Ctrl-C")]))
    def fail_to_connect(self, error: BaseException) -> None:
        """A connect that fails finds its caller when nothing can be returned to it."""
        if self.pool.idle or self.holders:
            return
        self.server.error = error
        caller = Caller(self.pool)
        caller.start()
        caller.join(10)
        assert caller.error is error
        self.server.error = None
        self.settle()

    @precondition(lambda self: not self.waiters and len(self.holders) < self.limit)
    @rule()
    def the_server_is_away_for_a_moment(self) -> None:
        """Once it was there, its absence is waited out; at first it is told at once."""
        if self.pool.idle:
            return
        warm = self.pool.line.warm
        self.server.error = ConnectionRefusedError("refused")
        caller = Caller(self.pool)
        caller.start()
        assert eventually(lambda: self.pool.line.trouble is not None or caller.settled)
        self.server.error = None
        caller.join(3)
        assert (caller.connection is not None) == warm, (caller.error, self._state())
        if warm:
            self.holders.append(caller)
        self.settle()

    @rule()
    def time_out(self) -> None:
        full = self.pool.open >= self.pool.limit and not self.pool.idle
        if not full:
            return
        before, self.pool._timeout = self.pool._timeout, 0.01
        try:
            with pytest.raises(exc.TimeoutError):
                self.pool.connect()
        finally:
            self.pool._timeout = before
        self.settle()

    @precondition(lambda self: len(self.pools) < 4)
    @rule()
    def dispose(self) -> None:
        self.pool.dispose()
        self.pool = self.pool.recreate()
        self.pools.append(self.pool)
        self.settle()

    @rule()
    def invalidate_everything(self) -> None:
        self.pool.invalidate_all()
        self.settle()

    @rule(where=st.sampled_from(["_lend", "get_ident", "part"]))
    def interrupt(self, where: str) -> None:
        """Ctrl-C strikes after the line let go of a connection and before the caller has it."""
        if not self.pool.idle or self.waiters:
            return
        import dbconfig.engine.pool.threads as line

        def strike(*_: object, **__: object) -> Any:
            raise Interrupt

        patch = pytest.MonkeyPatch()
        if where == "get_ident":
            patch.setattr(line, "get_ident", strike)
        else:
            for place in self.pool.idle:
                place.connection.doubtful_at = 0.0
            patch.setattr(FairPool if where == "_lend" else Record, where, strike)
            if where == "part":
                for place in self.pool.idle:
                    place.expires = 0.0
        try:
            with pytest.raises(Interrupt) as caught:
                self.pool.connect()
        finally:
            patch.undo()
        caught.value.__traceback__ = None
        del caught
        gc.collect()
        self.settle()

    @invariant()
    def no_place_is_lost_or_doubled(self) -> None:
        if not hasattr(self, "pool"):
            return
        for pool in self.pools:
            held = sum(holder.pool is pool for holder in self.holders)
            assert pool.open == len(pool.idle) + held, self._state()
            assert pool.open <= self.limit
            assert pool.connecting == 0
            assert not (pool.waiters and pool.idle), "somebody waits although a connection is idle"
            assert not pool.disposed or not pool.idle

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        for _ in range(100):
            while self.holders:
                holder = self.holders.pop()
                holder.connection.close()
                holder.connection = None
            self.settle()
            if not self.waiters and not self.holders:
                break
        assert not self.waiters, "nobody is left waiting"
        for pool in self.pools:
            pool.dispose()
            assert pool.open == 0


TestLine = Line.TestCase
TestLine.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
