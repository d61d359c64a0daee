"""Read your writes: what a task or thread has committed, and whether a server already has it."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from math import isfinite
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from sqlalchemy import Engine

from dbconfig.errors.light_dataclass import dataclass

if TYPE_CHECKING:
    from dbconfig.settings.database import DatabaseSettings

# Seconds after a commit during which only the primary is read, if positions cannot be compared.
BY_TIME: Final = 10.0
# Seconds by which the clocks of two processes may differ.
CLOCKS: Final = 10.0


@dataclass(slots=True)
class Mark:
    """The last commit of a context: its time, and its position once the primary has been queried.

    Not frozen: contexts are copied, and the copies share the result of one query. Otherwise a commit at the start of a
    process would cost each request a query.
    """

    at: float  # time.time(): it is passed to other processes
    position: str = ""
    asked: bool = False
    claimed: bool = False  # from a token, which a client may have forged


class Scope:
    """What a request has committed, shared by all tasks and threads that work for it."""

    def __init__(self, marks: Mapping[str, Mark], outer: Scope | None = None) -> None:
        self.marks: dict[str, Mark] = dict(marks)
        self.outer: Scope | None = outer
        self.ended: bool = False


_scope: ContextVar[Scope | None] = ContextVar("dbconfig.scope", default=None)
_marks: ContextVar[Mapping[str, Mark]] = ContextVar("dbconfig.marks", default={})  # noqa: B039  # never written into


def marks() -> Mapping[str, Mark]:
    scope = _scope.get()
    return _marks.get() if scope is None else scope.marks


def note(key: str, mark: Mark) -> None:
    scope = _scope.get()
    if scope is None:
        _marks.set({**_marks.get(), key: mark})
    else:
        scope.marks[key] = mark


@contextmanager
def scope(found: Mapping[str, Mark]) -> Iterator[Scope]:
    own = marks()
    both = {key: _later(own[key], mark) if key in own else mark for key, mark in found.items()}
    opened = Scope({**own, **both}, _active(_scope.get()))
    _scope.set(opened)
    try:
        yield opened
    finally:
        opened.ended = True
        # Frameworks enter and leave a synchronous dependency in different copies of a context. Not with a `Token`,
        # which can be reset only in the context that created it.
        if _scope.get() is opened:
            _scope.set(_active(opened.outer))


def _active(found: Scope | None) -> Scope | None:
    """Return the innermost scope that has not ended: blocks of one context may end in any order."""
    while found is not None and found.ended:
        found = found.outer
    return found


def _later(own: Mark, given: Mark) -> Mark:
    """Return a mark that covers both; the time of a given one comes from another process's clock."""
    if own.at < given.at - CLOCKS:
        return given
    return Mark(max(own.at, given.at))  # the primary, asked again, is further than either


def key_of(label: str, settings: DatabaseSettings) -> str:
    """Return the name of a database in marks and tokens: the same in each process that has the same profile."""
    address = settings.address
    where = (address.host, address.port, address.database, sorted(map(str, address.query.get("host", ()))))
    return f"{label}#{crc32(repr(where).encode()):08x}"


def attach(engine: Engine, settings: DatabaseSettings, label: str) -> None:
    """Record each commit of a writable engine, if its replicas must not be behind it."""
    if settings.replicas and settings.read_your_writes:
        watch_commits(engine, key_of(label, settings))


def watch_commits(engine: Engine, key: str) -> None:
    """Record each commit on an engine; in the dialect, because a listener would cost time per statement."""
    dialect: Any = engine.dialect
    commit: Callable[[Any], None] = dialect.do_commit
    commit_prepared: Callable[..., None] = dialect.do_commit_twophase

    # Also after a failed COMMIT, which may have taken effect: a caller that checks must not read from a replica. The
    # current position does not show it, since the server may not be done, so only the primary is read for a while.
    def do_commit(connection: Any) -> None:
        mark = Mark(time.time(), asked=True)
        try:
            commit(connection)
            mark.asked = False
        finally:
            note(key, mark)

    def do_commit_twophase(*arguments: Any, **keywords: Any) -> None:
        mark = Mark(time.time(), asked=True)
        try:
            commit_prepared(*arguments, **keywords)
            mark.asked = False
        finally:
            note(key, mark)

    dialect.do_commit = do_commit
    dialect.do_commit_twophase = do_commit_twophase


# Tokens


def to_token(found: Mapping[str, Mark]) -> str:
    """Return marks as text for a cookie, a header or a message; "" for none."""
    if not found:
        return ""
    plain = {key: [round(mark.at, 3), mark.position] for key, mark in found.items()}
    return base64.urlsafe_b64encode(json.dumps(plain, separators=(",", ":")).encode()).decode().rstrip("=")


def from_token(token: str) -> dict[str, Mark]:
    """Return the marks of a token.

    Raises:
        ValueError: it is not a valid token.
    """
    if not token:
        return {}
    try:
        plain = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        found = {key: Mark(float(at), str(position), True) for key, (at, position) in plain.items()}
        if not all(isfinite(mark.at) for mark in found.values()):
            raise ValueError("a time in the far future")
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, binascii.Error):
        raise ValueError("this is not a token of write_token()") from None
    # A clock that is ahead, or a manipulated token, must not keep reads on the primary indefinitely.
    return {key: Mark(min(mark.at, time.time()), mark.position, True, True) for key, mark in found.items()}


# Positions
