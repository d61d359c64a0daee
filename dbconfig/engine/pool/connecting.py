"""New connections: who opens them, how many at a time, and what a failure means for the waiters."""

from __future__ import annotations

import contextvars
import logging
import time
from threading import Thread, get_ident
from typing import TYPE_CHECKING

from dbconfig.engine.pool import deadline, forks, judgements
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.record import NEVER, Record, Slot, is_held_here

if TYPE_CHECKING:
    from dbconfig.engine.pool.owner import Owner

logger: logging.Logger = logging.getLogger("dbconfig.pool.connecting")

HELPERS = judgements.CONNECTS_AT_ONCE  # threads that connect beside the callers' own


class Order:
    """A place that a helper thread is to connect in.

    It counts as a helper for as long as it lives, whatever is interrupted. The place belongs either to the starter,
    which can withdraw the order until the thread has begun, or to the thread.
    """

    __slots__ = ("_connector", "_counted", "_slot")

    def __init__(self, connector: Connector, slot: Slot) -> None:
        self._connector = connector
        self._slot: Slot | None = slot
        self._counted = False

    def count(self) -> bool:
        """Count as a helper; return whether there may be one more."""
        connector = self._connector
        with connector._pool.lock:
            if connector.trouble is not None or connector._helpers >= HELPERS:
                return False
            connector._helpers += 1
            self._counted = True
        return True

    def begin(self) -> Slot | None:
        with self._connector._pool.lock:
            slot, self._slot = self._slot, None
        return slot

    def withdraw(self) -> Slot | None:
        slot = self.begin()
        if slot is not None:
            self.end()
        return slot

    def end(self) -> None:
        connector = self._connector
        if not connector._pool.in_its_process[0]:
            return  # as for Slot
        with connector._pool.lock:
            if self._counted:
                self._counted = False
                connector._helpers -= 1

    def __del__(self) -> None:
        try:
            self._drop()
        except BaseException:
            self._drop()  # as for Slot
            raise

    def _drop(self) -> None:
        if hasattr(self, "_counted"):
            self.end()


class Connector:
    """Makes connections for the line.

    The very first connect of a pool runs on its caller's thread, so that a wrong host or password ends in a plain
    traceback. From then on connects run on helper threads, and the caller takes the first of a returned or a new
    connection, or gives up at its deadline, however long the driver hangs.
    """

    def __init__(self, pool: Owner, *, inline: bool) -> None:
        self._pool = pool
        self.inline = inline  # opening a local file needs no helper
        self.warm: bool = False  # a connect has succeeded
        self.first_under_way: bool = False
        self._helpers = 0
        self.trouble: BaseException | None = None  # the error of the last connect, while it is being retried
        self.failures: int = 0  # in a row

    @property
    def free_helpers(self) -> int:
        return 0 if self.trouble is not None else HELPERS - self._helpers

    @property
    def on_callers_thread(self) -> bool:
        return self.inline or not self.warm

    def may_connect_here(self) -> bool:
        """Whether a caller that gets a free place connects on its own thread; the pool's lock is held."""
        return self.inline or not (self.warm or self.first_under_way)

    def succeeded(self) -> None:
        """Record that a connect has succeeded; the pool's lock is held."""
        self.warm = True
        self.trouble = None
        self.failures = 0

    def connect(self, slot: Slot, deadline: float = NEVER) -> Record:
        """Connect in this place, on this thread. On failure the place is free for the next caller in the queue."""
        try:
            record = self._connect_in(slot, deadline)
            self.staff()
            while record.generation != self._pool.generation:  # all were invalidated while it was being made
                record.part("invalidated")
                self._pool.reuse(slot)
                record = self._connect_in(slot, deadline)
        except BaseException:
            slot.release()
            raise
        return record

    def _connect_in(self, slot: Slot, deadline: float = NEVER) -> Record:
        pool = self._pool
        started = monotonic()
        token = (get_ident(), object())
        try:
            forks.connects.begin(token)
            record = pool.new_record(slot, deadline, started)
        finally:
            forks.connects.end(token)
        try:
            pool.settle(slot)
            now = monotonic()
            record.returned_at = record.lent_at = record.checked_at = now
            record.doubtful_at = min(now + pool.trust, record.expires)
            with pool.lock:
                pool.counters.create.observe(now - started)
        except BaseException:
            record.part("interrupted")
            raise
        return record

    # -- places for waiters

    def staff(self) -> None:
        """Use each free place as long as a caller waits for one."""
        pool = self._pool
        # Called by the garbage collector inside one of our critical sections: a thread started now may wait for us.
        starts_none = is_held_here(pool.lock)
        while True:
            with pool.lock:
                if not pool.waiters or pool.open >= pool.limit:
                    return
                here = self.on_callers_thread
                if here and not self.may_connect_here():
                    return
                # A caller whose deadline is nearer than a driver's shortest connect timeout gets a helper thread.
                here = here and next(iter(pool.waiters)).connects
                if not here and (self.trouble is not None or self._helpers >= min(HELPERS, len(pool.waiters))):
                    return
                slot = pool.new_slot()
                if here or starts_none:
                    pool.serve_first(slot)
            if starts_none:
                return
            if not here:
                self.employ(slot)

    def employ(self, slot: Slot) -> None:
        """Connect in this place on a helper thread, for the caller that is first in the queue when it is done."""
        order = Order(self, slot)
        try:
            if not order.count():
                order.withdraw()
                slot.release()
                return
            # A password provider may use the caller's context variables.
            context = contextvars.copy_context()
            Thread(target=context.run, args=(self._help, order), name="dbconfig-connect", daemon=True).start()
        except BaseException as error:
            if order.withdraw() is None:
                raise  # the helper has begun, or it was not needed
            if type(error).__module__ == "builtins" and isinstance(error, RuntimeError):
                # The interpreter is shutting down and starts no threads: let the caller connect on its own thread.
                self._pool.give_first(slot)
                return
            slot.release()
            raise

    def _help(self, order: Order) -> None:
        slot = order.begin()
        if slot is None:
            return
        deadline.lift()  # the caller may give up, and the connection goes to the next one
        attempt = 0
        try:
            while slot is not None:
                try:
                    record = self._connect_in(slot)
                except BaseException as error:
                    attempt += 1
                    slot = self._after_failure(slot, error, attempt)
                else:
                    attempt = 0
                    self._pool.hand_over(record)
                    del record  # a helper that lives on must not keep a connection alive
                    slot = self._next_slot()
        finally:
            order.end()
            self.staff()

    def _next_slot(self) -> Slot | None:
        pool = self._pool
        with pool.lock:
            if len(pool.waiters) < self._helpers or pool.open >= pool.limit:
                return None
            return pool.new_slot()

    # -- a connect has failed

    def _after_failure(self, slot: Slot, error: BaseException, attempt: int) -> Slot | None:
        """Decide who gets the error. Return the place if another attempt is to be made in it."""
        pool = self._pool
        transient = pool.options.judge.connects_again(error)  # without the lock: it may have to ask the server
        with pool.lock:
            self.failures += 1
            others_in_use = pool.open - pool.connecting > 0
            wanted, another_tries = bool(pool.waiters), self.trouble is not None and attempt == 1
            again = judgements.tries_again(
                waited_for=wanted,
                warm=self.warm,
                patient=pool.options.patient,
                transient=transient,
                others_in_use=others_in_use,
            )
            if not (again and another_tries):
                self.trouble = error if again else None
            if wanted and not again:
                pool.serve_first(error)
            for_the_next = not again and bool(pool.waiters)
        if not wanted:
            logger.debug("%s: a connect that no caller waits for has failed: %s", pool.options.name, error)
        if for_the_next:
            return slot
        if not again or another_tries:
            slot.release()
            return None
        # One tries, the others wait: for this attempt, for a connection that is still in use, or for their deadline.
        time.sleep(self._pause(attempt, transient))
        with pool.lock:
            if pool.waiters:
                return slot
            self.trouble = None
        slot.release()
        return None

    def _pause(self, attempt: int, transient: bool) -> float:
        pause = judgements.retry_pause(attempt, transient=transient)
        return pause * judgements.spread() if transient else pause
