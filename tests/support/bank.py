"""A bank under load: transfers that are journalled, and the audit that finds what was lost or done twice."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sqlalchemy import text

from dbconfig import CommitUncertain

ACCOUNTS = 16
OPENING = 1000

Work = Callable[[Any], None]
Run = Callable[[Work], object]  # runs a unit of work in a transaction: db.run_in_transaction, or a peer's way

CREATE = (
    "CREATE TABLE bank_account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)",
    # No unique key: what is applied twice shall be seen twice.
    "CREATE TABLE bank_journal (name VARCHAR(40), source INTEGER, target INTEGER)",
)


@dataclass
class Teller:
    """What one worker saw."""

    acknowledged: list[tuple[float, str]] = field(default_factory=list)  # when, and which transfer
    uncertain: list[str] = field(default_factory=list)
    errors: list[tuple[float, str, str]] = field(default_factory=list)  # when, which transfer, what
    ended: list[float] = field(default_factory=list)


@dataclass
class Result:
    """A run, audited."""

    acknowledged: int
    uncertain: int
    errors: Counter[str]
    lost: set[str]
    doubled: set[str]
    unasked: set[str]  # in the journal, though nobody was told so
    conserved: bool
    stall: float  # seconds: the longest that a worker waited for an answer
    recovery: float | None  # seconds from the end of the fault until every worker had an acknowledgement again
    late: float  # seconds that a worker was still without an answer at the end

    @property
    def sound(self) -> bool:
        return self.conserved and not (self.lost or self.doubled or self.unasked)

    def __str__(self) -> str:
        recovery = "never" if self.recovery is None else f"{self.recovery:.2f} s"
        return (
            f"{self.acknowledged} acknowledged, {len(self.lost)} lost, {len(self.doubled)} doubled, "
            f"{self.uncertain} uncertain, {sum(self.errors.values())} errors {dict(self.errors) or ''}, "
            f"longest stall {self.stall:.2f} s, all back after {recovery}"
        )


class Bank:
    """Accounts and their journal in an empty database."""

    def __init__(self, run: Run) -> None:
        """Open the bank; `run` is an undisturbed way to the database, also for the audit."""
        self._direct = run
        run(self._create)

    @staticmethod
    def _create(session: Any) -> None:
        for statement in CREATE:
            session.execute(text(statement))
        for number in range(1, ACCOUNTS + 1):
            session.execute(text("INSERT INTO bank_account VALUES (:id, :opening)"), {"id": number, "opening": OPENING})

    @contextmanager
    def open(self, run: Run, tellers: int = 8, name: str = "t") -> Iterator[Shift]:
        """Let tellers work for as long as the block lasts; they have begun when it begins."""
        shift = Shift(self, run, tellers, name)
        try:
            shift.wait_for_work()
            yield shift
        finally:
            shift.close()

    def audit(self, tellers: list[Teller], healed: float | None = None, late: float = 0.0) -> Result:
        found: dict[str, Any] = {}

        def read(session: Any) -> None:
            rows = session.execute(text("SELECT name, source, target FROM bank_journal")).all()
            found["journal"] = [tuple(row) for row in rows]
            found["balances"] = dict(
                tuple(row) for row in session.execute(text("SELECT id, balance FROM bank_account")).all()
            )

        self._direct(read)
        expected = dict.fromkeys(range(1, ACCOUNTS + 1), OPENING)
        for _, source, target in found["journal"]:
            expected[source] -= 1
            expected[target] += 1
        times = Counter(name for name, _, _ in found["journal"])
        acknowledged = {name for teller in tellers for _, name in teller.acknowledged}
        told = acknowledged | {name for teller in tellers for name in teller.uncertain}
        told |= {name for teller in tellers for _, name, _ in teller.errors}
        firsts = [
            min((at for at, _ in teller.acknowledged if healed is not None and at >= healed), default=None)
            for teller in tellers
        ]
        back = None if healed is None or None in firsts else max(at for at in firsts if at is not None) - healed
        return Result(
            acknowledged=len(acknowledged),
            uncertain=sum(len(teller.uncertain) for teller in tellers),
            errors=Counter(what for teller in tellers for _, _, what in teller.errors),
            lost=acknowledged - times.keys(),
            doubled={name for name, number in times.items() if number > 1},
            unasked=times.keys() - told,
            conserved=found["balances"] == expected,
            stall=max((b - a for teller in tellers for a, b in pairwise(teller.ended)), default=0.0),
            recovery=back,
            late=late,
        )


class Shift:
    """Tellers at work."""

    def __init__(self, bank: Bank, run: Run, tellers: int, name: str) -> None:
        self.tellers = [Teller() for _ in range(tellers)]
        self._bank = bank
        self._run = run
        self._name = name
        self._over = threading.Event()
        self._healed: float | None = None
        self._late = 0.0
        self._threads = [threading.Thread(target=self._work, args=(number,), daemon=True) for number in range(tellers)]
        for thread in self._threads:
            thread.start()

    def _work(self, number: int) -> None:
        choose, teller, turn = random.Random(number), self.tellers[number], 0
        teller.ended.append(time.monotonic())
        while not self._over.is_set():
            turn += 1
            name = f"{self._name}{number}-{turn}"
            source, target = choose.sample(range(1, ACCOUNTS + 1), 2)
            try:
                self._run(transfer(name, source, target))
            except CommitUncertain:
                teller.uncertain.append(name)
            except Exception as error:
                cause = getattr(error, "orig", None) or error
                teller.errors.append((time.monotonic(), name, type(cause).__name__))
                time.sleep(0.02)  # a caller who fails at once would count the same outage a thousand times
            else:
                teller.acknowledged.append((time.monotonic(), name))
            teller.ended.append(time.monotonic())

    def wait_for_work(self, more: int = 3, limit: float = 30.0) -> None:
        """Wait until each teller has done so many transfers from now on."""
        before = [len(teller.acknowledged) for teller in self.tellers]
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            if all(len(teller.acknowledged) >= was + more for teller, was in zip(self.tellers, before, strict=True)):
                return
            time.sleep(0.01)

    def healed(self) -> None:
        """Note that the fault has ended: recovery counts from here."""
        self._healed = time.monotonic()

    def close(self, limit: float = 60.0) -> None:
        if self._over.is_set():
            return
        self._over.set()
        ended = time.monotonic()
        for thread in self._threads:
            thread.join(max(0.0, ended + limit - time.monotonic()))
        self._late = time.monotonic() - ended

    def result(self) -> Result:
        self.close()
        return self._bank.audit(self.tellers, self._healed, self._late)


def transfer(name: str, source: int, target: int) -> Work:
    """Return the work of moving one from an account to another, in an order that cannot deadlock by itself."""

    def work(session: Any) -> None:
        changes = sorted([(source, -1), (target, 1)])
        for number, change in changes:
            session.execute(
                text("UPDATE bank_account SET balance = balance + :change WHERE id = :id"),
                {"change": change, "id": number},
            )
        session.execute(
            text("INSERT INTO bank_journal VALUES (:name, :source, :target)"),
            {"name": name, "source": source, "target": target},
        )

    return work
