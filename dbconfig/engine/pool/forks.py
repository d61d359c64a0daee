"""State that a forked child must discard: locked locks, missing threads, and the parent's connections."""

from __future__ import annotations

import mmap
import os
import threading
import time
import weakref
from collections.abc import Callable
from threading import get_ident
from types import MethodType
from typing import Any, Final, Protocol

from sqlalchemy.exc import ResourceClosedError
from sqlalchemy.pool import base

from dbconfig.engine.pool import unseen_forks

Reset = Callable[[], None]
_resets: list[Callable[[], Reset | None]] = []
_last: list[Reset] = []
# Connections of the parent that this process inherited in use. They are kept forever: closing one, or rolling it back,
# would write to the parent's socket and end its transaction.
_pinned: list[Any] = []
_WIPE_ON_FORK = 18  # MADV_WIPEONFORK, which the module does not name before 3.15
_pids = [os.getpid()]  # of the process whose state is valid
_begun = [os.getpid()]  # of the process whose hooks after a fork have all run


class Guarded(Protocol):
    """State that a fork must not interrupt in the middle of a change."""

    def before_fork(self) -> None: ...  # wait for the change, and allow no further one

    def after_fork_in_parent(self) -> None: ...  # also if `before_fork` was interrupted, or this

    def after_fork_in_child(self) -> None: ...


Token = tuple[int, object]  # the thread, and what tells one connect from another


class Connects:
    """The connects in progress; a fork waits briefly for them to finish.

    OpenSSL and the resolver of the C library have locks that no hook frees in a child. One that a thread of the parent
    held in the fork, while it created a TLS context, made the child's first connect hang (seen with PyMySQL, which
    creates one for each connection).
    """

    LIMIT = 1.0  # seconds: a silent server must not delay a fork for longer

    def __init__(self) -> None:
        self._under_way: set[Token] = set()
        self._forking = 0  # the thread that forks

    def begin(self, token: Token) -> None:
        """Register a connect on this thread, once no fork is pending. `end` follows in any case."""
        latest = time.monotonic() + 2 * self.LIMIT
        while True:
            # In this order, and the other way round in `pause`: one of the two sees the other.
            self._under_way.add(token)
            if self._forking in (0, token[0]) or time.monotonic() > latest:
                return
            self._under_way.discard(token)
            time.sleep(0.001)

    def end(self, token: Token) -> None:
        self._under_way.discard(token)

    def pause(self) -> None:
        """Wait for those of the other threads, and let none begin until `go_on`."""
        self._forking = me = get_ident()
        latest = time.monotonic() + self.LIMIT
        while any(thread != me for thread, _ in list(self._under_way)) and time.monotonic() < latest:
            time.sleep(0.001)

    def go_on(self) -> None:
        self._forking = 0

    def forget(self) -> None:
        """In a child: the threads that were connecting do not exist."""
        self._forking = 0
        self._under_way.clear()


connects = Connects()
_guarded: weakref.WeakSet[Guarded] = weakref.WeakSet()
_forking = [threading.RLock()]  # one fork at a time: two of them could deadlock
_held: list[Guarded] = []  # those that wait for this fork to be over; others may appear meanwhile


def after_fork_in_child(reset: Reset) -> None:
    """Call a function in every child that is forked from now on; a bound method as long as its object lives."""
    _resets[:] = [known for known in _resets if known() is not None]
    _resets.append(weakref.WeakMethod(reset) if isinstance(reset, MethodType) else lambda: reset)


def after_locks_in_child(reset: Reset) -> None:
    """Call a function in every child, once every lock of the pool is free again."""
    _last.append(reset)


def guard(owner: Guarded) -> None:
    """Notify an object before and after every fork, as long as it is alive."""
    _guarded.add(owner)


def _before() -> None:
    # A lock that another thread holds at the fork would stay locked in the child, with its data half changed.
    # If a signal handler raises in here, Python still forks, and calls the hooks after the fork.
    _forking[0].acquire()
    connects.pause()
    for owner in list(_guarded):
        _held.append(owner)  # first: otherwise an interrupt could leave it locked
        owner.before_fork()


def _after_in_parent() -> None:
    if not _forking[0]._is_owned():  # type: ignore[attr-defined]  # a method that threading.Condition uses
        return  # all is done
    while _held:
        _held[-1].after_fork_in_parent()
        _held.pop()
    connects.go_on()
    _forking[0].release()


class _Pid:
    """The slow way to detect a fork, without a wiped page: a system call."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __getitem__(self, index: int, /) -> int:
        return os.getpid() == self._pid


class Mark(Protocol):
    """True at index 0 in the process that made it."""

    def __getitem__(self, index: int, /) -> int: ...


def mark() -> Mark:
    """Return a sequence whose item 0 is true in this process, and false in every child forked from it.

    Also if the fork happens in C, where Python's hooks do not run. Reading it costs a tenth of a system call.
    """
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.madvise(_WIPE_ON_FORK)
    except (AttributeError, OSError, ValueError):  # not Linux, or before 4.14
        return _Pid()
    page[0] = 1
    return page


def _after_in_child() -> None:
    if _begun[0] == os.getpid():
        return
    _held.clear()
    _forking[0] = threading.RLock()
    _free_locks()
    for reset in _last:
        reset()
    _tell_guarded()
    _begun[0] = os.getpid()


def notice() -> None:
    """Run the hooks of a fork that Python did not see: in C, as uWSGI forks its workers.

    Each pool handles its own connections then, at its next use. What may start the first thread of a process calls this
    before.
    """
    if os.getpid() not in _pids:
        _held.clear()
        _forking[0] = threading.RLock()
        _free_locks()
        _tell_guarded()
        _begun[0] = os.getpid()  # the hook would also give up the connection that is being opened
        unseen_forks.tell_the_interpreter()


def _free_locks() -> None:
    _pids[:] = [os.getpid()]
    connects.forget()
    for known in list(_resets):
        reset = known()
        if reset is not None:
            reset()


def _tell_guarded() -> None:
    for owner in list(_guarded):
        owner.after_fork_in_child()


def keep(inherited: object) -> None:
    """Keep an object of the parent from being collected: a driver would close the session over the parent's socket."""
    _pinned.append(inherited)


_PARENTS: Final = "this connection was opened before the fork, and is the parent's: open a new session in this process"


class _ParentsConnection:
    """Replaces the driver's connection, and raises an error that says that it is the parent's."""

    def __getattr__(self, name: str) -> Any:
        raise ResourceClosedError(_PARENTS)


class _ParentsProxy:
    """The methods of a proxy that a child has inherited in use: they do nothing."""

    __slots__ = ()

    is_valid = False  # SQLAlchemy sends no ROLLBACK then

    def cursor(self, *arguments: Any, **keywords: Any) -> Any:
        raise ResourceClosedError(_PARENTS)

    def _nothing(self, *arguments: Any, **keywords: Any) -> None:
        """Leave the connection alone."""

    close = _close = _close_special = _checkin = detach = invalidate = _nothing


# What a unit of work replaces on the proxy itself, where it would come before the methods of the class.
_WATCHED: Final = ("commit", "rollback", "cursor")
_of_parent: dict[type, type] = {}  # by the class of the proxy


def pin(records: list[Any]) -> None:
    """Keep inherited connections open and out of use.

    A holder in the child, such as a session that was open at the fork, gets an error at the next statement, which never
    reaches the parent's socket.
    """
    for record in records:
        fairy = record.fairy_ref() if record.fairy_ref is not None else None
        _pinned.append((record, record.dbapi_connection))
        if fairy is None:
            continue
        _pinned.append(fairy)
        finalizer = getattr(fairy, "_finalizer", None)  # SQLAlchemy 2.1
        if finalizer is not None:
            finalizer.detach()
        # SQLAlchemy 2.0 cleans up in a weak reference's callback, which would run at the end of the process.
        getattr(base, "_strong_ref_connection_records", {}).pop(record.fairy_ref, None)
        record.fairy_ref = None
        fairy.dbapi_connection = None
        fairy._connection_record = None
        if isinstance(fairy, base._ConnectionFairy):
            kind: type = type(fairy)
            for name in _WATCHED:
                vars(fairy).pop(name, None)
            known = _of_parent.get(kind)
            if known is None:
                known = _of_parent[kind] = type(kind.__name__, (_ParentsProxy, kind), {"__slots__": ()})
            fairy.__class__ = known
            fairy.dbapi_connection = _ParentsConnection()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
    # Twice: if a signal handler raises in a hook, Python prints the error and does not repeat the hook.
    os.register_at_fork(after_in_parent=_after_in_parent, after_in_child=_after_in_child)
