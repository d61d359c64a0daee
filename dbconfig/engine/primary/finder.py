"""Executes the search for the primary, with threads or with tasks of an event loop."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from threading import Condition, Thread
from typing import Any, Final

from sqlalchemy.util import await_only, greenlet_spawn

from dbconfig.engine.dialects import read_only_by_default, server_role
from dbconfig.engine.dialects.server_role import Answer, Role
from dbconfig.engine.pool import descriptor, farewell, forks, watch
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.primary.search import Host, Memory, Search
from dbconfig.settings.database import DatabaseSettings

logger: logging.Logger = logging.getLogger("dbconfig.primary")

# Seconds that a server has to report its role after the login.
ANSWER_LIMIT: Final = 2.0

Connect = Callable[..., Any]
Found = Callable[[Host, bool], None]  # the new primary, and whether the others must no longer be written to
_ANY: Final = Answer(Role.PRIMARY, "it answers")
_FOR_ALL: Final = ("target_session_attrs", "host", "port")  # driver arguments that apply to all hosts together


class Finder(ABC):
    """Connects to the primary among several hosts, and remembers which one it is."""

    def __init__(self, dialect: Any, settings: DatabaseSettings, hosts: Sequence[Host], *, wants: str) -> None:
        """Start without a known primary.

        Args:
            dialect: of the engine.
            settings: the database system, and the limit of one search.
            hosts: in the order in which they are preferred.
            wants: "any", "primary", or "read-write": a primary whose transactions are not read-only by default.
        """
        self.memory: Memory = Memory()
        self.on_change: Found = lambda host, alone: None
        self._dialect = dialect
        self._settings = settings
        self._hosts = hosts
        self._limit = settings.connect_timeout
        self._wants = wants
        self._places: dict[int, Host] = {}  # by the `id()` of a connection, until its record has it

    @abstractmethod
    def connect(self, connect: Connect, given: Mapping[str, Any]) -> Any:
        """Return a connection to the primary.

        Raises:
            NoPrimary: no host is one; it gives the reason for each host.
        """

    @abstractmethod
    def _ring(self) -> None:
        """Wake the searches that wait for an answer."""

    def place_of(self, connection: Any) -> Host | None:
        """Return the host of a new connection, and forget it."""
        return self._places.pop(id(connection), None)

    def _search(self) -> Search:
        return Search(self._hosts, self.memory, monotonic(), any_server=self._wants == "any")

    def _ask(self, connection: Any) -> Answer:
        if self._wants == "any":
            return _ANY
        answer = server_role.ask(self._settings.backend, connection, strictly=self._wants == "read-write")
        if answer.role is Role.READ_ONLY:
            reason = read_only_by_default.reason(self._settings, partial(nullcontext, connection))
            if reason:  # not the server itself, which another one could replace
                raise ReadOnlyByDefault(reason)
        return answer

    def _won(self, search: Search, connection: Any, answer: Answer) -> Any:
        host = search.winner
        assert host is not None
        self._places[id(connection)] = host
        changed = self.memory.found(host, answer, monotonic())
        self._ring()
        if changed:
            self.on_change(host, answer.role is Role.PRIMARY and self._wants != "any")
        return connection


class ReadOnlyByDefault(Exception):
    """A server accepts writes, but the transactions of this role, database, or client are read-only by default."""


class NoPrimary(Exception):
    """None of the hosts is the primary; the answer of each."""

    def __init__(self, said: Mapping[Host, str | BaseException], silent: Sequence[Host]) -> None:
        super().__init__(said, silent)  # recreated from these in another process
        self.said = said
        self.silent = silent

    def __str__(self) -> str:
        return "no primary"


def _parameters(given: Mapping[str, Any], host: Host) -> dict[str, Any]:
    own = {name: value for name, value in given.items() if name not in _FOR_ALL}
    return {**own, "host": host[0], "port": host[1]}


class ThreadFinder(Finder):
    """Asks each host in a separate thread, and returns with the first good answer."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._unlock()
        forks.after_fork_in_child(self._unlock)

    def _unlock(self) -> None:
        self._bell = Condition()  # rings when a host has answered

    def connect(self, connect: Connect, given: Mapping[str, Any]) -> Any:
        deadline = monotonic() + self._limit
        kept: dict[Host, tuple[Any, Answer]] = {}
        with self._bell:
            search = self._search()
        try:
            with self._bell:
                while True:
                    now = monotonic()
                    search.hear(now)
                    for host in search.due(now):
                        self._begin(search, host, kept, connect, _parameters(given, host))
                    if search.choose(now) is not None:
                        break
                    if search.is_over or now >= deadline:
                        raise NoPrimary(search.answers(), search.silent())
                    self._bell.wait(max(0.0, min(search.next(), deadline) - now))
                assert search.winner is not None
                connection, answer = kept.pop(search.winner)
        finally:
            with self._bell:
                search.abandon()
                rest = [connection for connection, _ in kept.values()]
            for each in rest:
                self._close(each)
        return self._won(search, connection, answer)

    def _ring(self) -> None:
        with self._bell:
            self._bell.notify_all()

    def _begin(self, search: Search, host: Host, kept: dict[Host, Any], connect: Connect, own: dict[str, Any]) -> None:
        arguments = (search, host, kept, connect, own)
        try:
            Thread(target=self._attempt, args=arguments, name="dbconfig-host", daemon=True).start()
        except RuntimeError:  # the interpreter is shutting down, and starts no threads
            self._attempt(*arguments)

    def _attempt(
        self, search: Search, host: Host, kept: dict[Host, Any], connect: Connect, own: dict[str, Any]
    ) -> None:
        connection, answer = None, None
        found: Answer | BaseException
        try:
            connection = connect(**own)
            fd = descriptor(self._dialect, self._dialect.get_driver_connection(connection))
            answer, in_time = watch.call(fd, ANSWER_LIMIT, self._ask, connection)
            found = answer if in_time else TimeoutError("it does not report its role")
        except BaseException as error:
            found = error
        finally:
            own.clear()  # the password
        with self._bell:
            keep = search.answered(host, found, monotonic())
            if keep:
                kept[host] = (connection, answer)
            self._bell.notify_all()
        if connection is not None and not keep:
            self._close(connection)

    def _close(self, connection: Any) -> None:
        try:
            self._dialect.do_close(connection)
        except Exception as error:
            logger.debug("a connection to one of several hosts did not close: %s", error)


class TaskFinder(Finder):
    """The same in an event loop, with a task per host."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.pool: Callable[[], Any] = lambda: None  # which waits for the tasks when it ends
        self._bells: set[asyncio.Event] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def connect(self, connect: Connect, given: Mapping[str, Any]) -> Any:
        return await_only(self._connect(connect, given))

    async def _connect(self, connect: Connect, given: Mapping[str, Any]) -> Any:
        search, deadline = self._search(), monotonic() + self._limit
        kept: dict[Host, tuple[Any, Answer]] = {}
        bell = asyncio.Event()
        self._bells.add(bell)
        try:
            while True:
                now = monotonic()
                search.hear(now)
                for host in search.due(now):
                    self._spawn(self._attempt(search, host, kept, connect, _parameters(given, host)))
                if search.choose(now) is not None:
                    break
                if search.is_over or now >= deadline:
                    raise NoPrimary(search.answers(), search.silent())
                bell.clear()
                try:
                    async with asyncio.timeout(max(0.0, min(search.next(), deadline) - now)):
                        await bell.wait()
                except TimeoutError:
                    continue
            assert search.winner is not None
            connection, answer = kept.pop(search.winner)
        finally:
            self._bells.discard(bell)
            search.abandon()
            for each, _ in kept.values():
                self._spawn(farewell.close(self._dialect, each, terminate=False))
        return self._won(search, connection, answer)

    def _ring(self) -> None:
        for bell in self._bells:
            bell.set()

    def _spawn(self, work: Any) -> None:
        from dbconfig.engine.pool import TaskPool

        pool = self.pool()
        if isinstance(pool, TaskPool) and pool._loop is asyncio.get_running_loop():
            pool._spawn(work, pool._closes)
            return
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attempt(
        self, search: Search, host: Host, kept: dict[Host, Any], connect: Connect, own: dict[str, Any]
    ) -> None:
        connection, answer = None, None
        found: Answer | BaseException = ConnectionAbortedError("the event loop ends")
        try:
            connection = await greenlet_spawn(connect, **own)
            async with asyncio.timeout(ANSWER_LIMIT):
                found = answer = await greenlet_spawn(self._ask, connection)
        except Exception as error:
            found = error
        finally:
            own.clear()  # the password
            keep = search.answered(host, found, monotonic())
            if keep:
                kept[host] = (connection, answer)
            self._ring()
        if connection is not None and not keep:
            await farewell.close(self._dialect, connection, terminate=False)
