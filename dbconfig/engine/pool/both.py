"""What the pool of threads and the pool of asyncio have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from sqlalchemy.pool import QueuePool

from dbconfig.engine.pool import judgements
from dbconfig.engine.pool.options import LineOptions, own_arguments
from dbconfig.engine.pool.place import Rules
from dbconfig.engine.pool.record import Record
from dbconfig.engine.pool.refusal import NEVER
from dbconfig.engine.pool.sockets import Verdict
from dbconfig.engine.pool.tally import Counters, Past

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from dbconfig.engine.pool.inspections import Inspection
    from dbconfig.engine.pool.record import Leaks
    from dbconfig.engine.pool.timeout_errors import Explain

# Seconds; threading cannot wait for longer, and "forever" is not a time a caller means.
LONGEST_WAIT = 86_400.0


class Ours(QueuePool):
    """The base of both pools: what each knows of its engine, counts, and passes on to the pool that follows it."""

    # Set by `attach`, for an engine; the pool that follows gets them too.
    explain: Explain | None = None  # writes the notes of a timeout
    at_dispose: Callable[[], None] | None = None
    inspections: tuple[Inspection, ...] = ()
    leaks: Leaks | None = None
    server: str = "the server"  # its name in errors
    disown: Callable[[], list[Any]] | None = None  # forgets and returns the connections of the parent

    generation: int  # of the connections made from now on; the older ones are invalid
    open: int  # connections: idle, in use, connecting, or closing
    idle: Collection[Any]

    def __init__(
        self, creator: Any, line: LineOptions | None = None, past: Past | None = None, **arguments: Any
    ) -> None:
        super().__init__(creator, **arguments)
        self.options: LineOptions = line or LineOptions()
        self.counters: Counters = Counters()
        self.past: Past = past or Past()
        self._check = self.options.check
        self.trust: float = NEVER if self._check is None else self._check.trust
        self.steady: float = self._pool.maxsize or NEVER  # connections that are kept however they are used
        self.limit: float = NEVER if self._max_overflow == -1 else self._pool.maxsize + self._max_overflow

    def rules(self, **of_the_driver: Any) -> Rules:
        """Return the rules of the queue of this pool."""
        options, spread = self.options, judgements.spread()
        return Rules(
            size=self.steady,
            limit=self.limit,
            lifo=self._pool.use_lifo,
            max_waiting=options.max_waiting,
            queue_target=options.queue_target,
            min_idle=options.min_idle,
            idle_timeout=options.idle_timeout,
            keepalive=options.keepalive,
            patient=options.patient,
            connect_stalls=min(1.0, max(self._timeout, 0.1) / 2),
            retry_first=judgements.RETRY_FIRST * spread,
            retry_longest=judgements.RETRY_LONGEST * spread,
            **of_the_driver,
        )

    def deadline_from(self, start: float) -> float:
        """Return when a checkout that begins now is over."""
        return start + min(self._timeout, LONGEST_WAIT) if self._timeout > 0 else start

    def failed_by(self, verdict: Verdict, record: Record) -> str:
        """Return why a connection that is dead or silent closes."""
        if verdict is Verdict.SILENT and record.generation == self.generation:
            # As SQLAlchemy's pre-ping: the others, of the same age, would each cost a caller the same wait.
            self.invalidate_all()
        return "ping"

    def invalidate_all(self) -> None:
        raise NotImplementedError

    def is_over(self) -> bool:
        raise NotImplementedError

    def _invalidate(self, connection: Any, exception: BaseException | None = None, _checkin: bool = True) -> None:
        # By generation and not, as SQLAlchemy does, by the wall clock: after a jump back by an hour each connection
        # would for an hour count as older than the invalidation, and be replaced at every checkout.
        record = getattr(connection, "_connection_record", None)
        if not isinstance(record, Record) or record.generation == self.generation:
            self.invalidate_all()
        if _checkin and getattr(connection, "is_valid", False):
            connection.invalidate(exception)

    def checkedin(self) -> int:
        return len(self.idle)

    def overflow(self) -> int:
        return self.open - self._pool.maxsize if self._pool.maxsize else 0

    def recreate(self) -> Self:
        # No lock here: after a fork this runs in the child, where a lock of another thread is never released.
        self.logger.info("Pool recreating")
        pool = self.__class__(self._creator, line=self.options, past=self.past.and_of(self), **own_arguments(self))
        pool.explain, pool.at_dispose = self.explain, self.at_dispose
        pool.inspections, pool.leaks = self.inspections, self.leaks
        pool.server, pool.disown = self.server, self.disown
        return pool
