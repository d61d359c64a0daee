"""The logic of the search for the primary: which host to ask when, and whose answer counts. Without I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from weakref import WeakSet

from dbconfig.engine.dialects.server_role import Answer, Role
from dbconfig.errors.light_dataclass import dataclass, field

Host = tuple[str, int]

# Seconds between two queries to a host that was not the primary: a cluster in an election must not be overloaded.
SPACING: Final = 1.0
# Seconds that the previous primary has to answer before the others are asked, and that an earlier host of the list has
# before a later one is chosen. A server in another country answers in less.
PATIENCE: Final = 0.25
# Seconds for which a server with a lower term is not accepted as primary. A cluster restored from a backup starts over.
STALE: Final = 60.0

NEVER: Final = float("inf")
_ACCEPTED: Final = (Role.PRIMARY, Role.ONE_OF_SEVERAL)


@dataclass(slots=True)
class Memory:
    """Knowledge about the hosts, kept from one search to the next.

    Attributes:
        primary: the host to try first; None if it is in doubt.
        last: the primary that was found last, in doubt or not.
        asked: when each host that was not the primary was last asked.
        term: the highest term that a primary has reported, and when.
        changes: how often the primary has changed.
        searches: those that are running.
    """

    primary: Host | None = None
    last: Host | None = None
    asked: dict[Host, float] = field(default_factory=dict)
    term: int = 0
    term_heard: float = -NEVER
    changes: int = 0
    searches: WeakSet[Search] = field(default_factory=WeakSet)

    def doubt(self, host: Host | None = None) -> None:
        """Ask all hosts next time; with `host`, only if that is the current primary."""
        if host is None or host == self.primary:
            self.primary = None

    def found(self, host: Host, answer: Answer, now: float) -> bool:
        """Record the primary; return whether it has changed."""
        self.primary = host
        self.asked.pop(host, None)
        if answer.term >= self.term or now - self.term_heard > STALE:
            self.term, self.term_heard = answer.term, now
        changed = self.last not in (None, host)
        self.last = host
        self.changes += changed
        return changed

    def is_stale(self, answer: Answer, now: float) -> bool:
        """Return whether a server that calls itself primary was superseded by a promotion."""
        return answer.role in _ACCEPTED and answer.term < self.term and now - self.term_heard <= STALE


class Search:
    """One search. `any_server` accepts any host that answers, in the order of the list.

    Of searches that run at the same time, one asks, and the others use the answer: a pool opens several connections at
    once, and together they ask no host more often than one of them may.
    """

    def __init__(self, hosts: Sequence[Host], memory: Memory, now: float, *, any_server: bool = False) -> None:
        self.hosts = hosts
        self.said: dict[Host, str | BaseException] = {}  # the last answer of each host that is not the primary
        self.winner: Host | None = None
        self.abandoned = False
        self._memory = memory
        self._any = any_server
        self._begun = now
        self._asking: dict[Host, float] = {}  # the hosts that have not answered yet, and when they were asked
        self._good: dict[Host, float] = {}  # hosts that may be chosen, and from when on
        self._due = {host: self._first_time(number, host, now) for number, host in enumerate(hosts)}
        memory.searches.add(self)

    def _first_time(self, number: int, host: Host, now: float) -> float:
        first = self._memory.primary
        if host == first:
            return now
        wait = PATIENCE if first is not None else number * PATIENCE if self._any else 0.0
        return max(now + wait, self._memory.asked.get(host, -NEVER) + SPACING)

    def due(self, now: float) -> list[Host]:
        """Return the hosts to ask now; they count as asked."""
        found = []
        for host in [host for host, when in self._due.items() if when <= now]:
            free = self._memory.asked.get(host, -NEVER) + SPACING
            if now < free and host != self._memory.primary:
                self._due[host] = free  # another search has asked it since
                continue
            del self._due[host]
            self._asking[host] = self._memory.asked[host] = now
            found.append(host)
        return found

    def answered(self, host: Host, answer: Answer | BaseException, now: float) -> bool:
        """Record the answer of a host; return whether to keep its connection."""
        asked = self._asking.pop(host, now)
        if isinstance(answer, Answer) and self._memory.is_stale(answer, now):
            answer = Answer(Role.OTHER, "another server was promoted in its place")
        accepts = isinstance(answer, Answer) and answer.role in _ACCEPTED
        said = answer.words if isinstance(answer, Answer) else answer
        if not accepts:
            for each in self._memory.searches:
                each._overhear(host, asked, said)
        if self.abandoned or self.winner is not None:
            return False
        if isinstance(answer, Answer) and accepts:
            several = answer.role is Role.ONE_OF_SEVERAL and host != self._memory.primary
            self._good[host] = max([now, *self._patience(host)]) if several else now
            self.choose(now)
            return self.winner in (None, host)
        self.said[host] = said
        if self._memory.primary in (None, host):
            self._memory.primary = None
            others = sorted(self._due, key=self.hosts.index)
            for other in others[: (not self._asking) if self._any else None]:
                self._due[other] = max(now, self._memory.asked.get(other, -NEVER) + SPACING)
        self.choose(now)
        if self._asking and self.winner is None:
            # Others have not answered yet: this one may be promoted in the meantime.
            self._due.setdefault(host, self._memory.asked[host] + SPACING)
        return False

    def _overhear(self, host: Host, asked: float, said: str | BaseException) -> None:
        """Record the answer of a host that another search has asked since this one has begun."""
        if asked >= self._begun and host in self._due:
            self.said[host] = said

    def _patience(self, host: Host) -> list[float]:
        """Return until when to wait for each host that is earlier in the list and has not answered yet."""
        earlier = self.hosts[: self.hosts.index(host)]
        return [self._memory.asked[each] + PATIENCE for each in earlier if each in self._asking]

    def hear(self, now: float) -> None:
        """Use the primary that another search has found meanwhile."""
        known = self._memory.primary
        if known is not None and known not in self._asking and known not in self._good:
            self._due[known] = now

    def abandon(self) -> None:
        """Ignore all further answers."""
        self.abandoned = True
        self._memory.searches.discard(self)

    def choose(self, now: float) -> Host | None:
        """Return the host to use: the first acceptable one in the list, once no earlier one is pending."""
        if self.winner is None and self._good:
            first = min(self._good, key=self.hosts.index)
            earlier = {host for host in self._asking if self.hosts.index(host) < self.hosts.index(first)}
            if not earlier or self._good[first] <= now:
                self.winner = first
        return self.winner

    @property
    def is_over(self) -> bool:
        """Whether there is a winner, or no answer is pending."""
        return self.winner is not None or not (self._asking or self._good or self._unasked())

    def _unasked(self) -> set[Host]:
        return self._due.keys() - self.said.keys()

    def next(self) -> float:
        """Return when to act next even without an answer."""
        return min((*self._due.values(), *self._good.values()), default=NEVER)

    def answers(self) -> dict[Host, str | BaseException]:
        """Return the answer of each host, in the order of the list."""
        return {host: self.said[host] for host in self.hosts if host in self.said}

    def silent(self) -> list[Host]:
        """Return the hosts that have not answered yet."""
        return [host for host in self.hosts if host not in self.said]
