"""A timeout of the pool that explains itself: who holds the connections, and what to change."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from dbconfig.engine.pool.diagnostics.call_sites import application_frames, describe, frames_of_task
from dbconfig.engine.pool.timeout_errors import HELD, OVERLOADED, Explain

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from dbconfig.engine.pool.diagnostics.counters import Holder, Ledger

GROUPS = 5  # places that a note names; the rest is summed up


class _Origins(Protocol):
    def origin(self, key: str) -> object: ...


def explainer(engine_of: Callable[[], Engine | None], ledger: Ledger, settings: _Origins, leaks: Any) -> Explain:
    """Return what writes the notes of a timeout of this engine."""

    def explain(slug: str) -> list[str]:
        engine = engine_of()  # weakly: the pool must not keep its engine alive
        if engine is None:
            return []
        stats = ledger.stats(engine.pool)
        overflow = "unlimited" if stats.max is None else stats.max - stats.size
        notes = [
            f"dbconfig[{slug}]: {stats.name}: {stats.used} in use of {stats.size} + {overflow} "
            f"(pool_size + max_overflow), {stats.idle} idle, {stats.connecting} connecting, {stats.waiting} waiting"
        ]
        holders = ledger.holders()
        if holders:
            notes.append(HELD + "; ".join(_grouped(holders, leaks)))
        if slug == OVERLOADED:
            notes.append(
                "help: answer 503 and let clients retry later, or return connections sooner; "
                f"pool_queue_target ({settings.origin('pool_queue_target')}) is the wait that callers accept"
            )
            return notes
        notes.append(
            "help: return connections sooner, or raise "
            f"pool_size ({settings.origin('pool_size')}) or max_overflow ({settings.origin('max_overflow')})"
        )
        if leaks is None:
            notes.append("help: pool_leak_warning names the line that took each connection")
        return notes

    return explain


def _grouped(holders: list[Holder], leaks: Any) -> list[str]:
    frames = sys._current_frames()
    groups: dict[str, list[float]] = {}
    for holder in holders:
        groups.setdefault(_place(holder, leaks, frames), []).append(holder.seconds)
    ordered = sorted(groups.items(), key=lambda group: -max(group[1]))
    lines = [
        f"{max(ages):.1f} s {place} ({len(ages)} connection{'s' if len(ages) > 1 else ''})"
        for place, ages in ordered[:GROUPS]
    ]
    rest = sum(len(ages) for _, ages in ordered[GROUPS:])
    return [*lines, f"and {rest} more"] if rest else lines


def _place(holder: Holder, leaks: Any, frames: dict[int, Any]) -> str:
    taken = leaks.place_of(holder.record) if leaks is not None else None
    if taken is not None:
        return f"at {taken}"
    # Where it was taken is known only with pool_leak_warning, which has a price at each checkout. Where its holder is
    # at this moment costs nothing before it is asked.
    task, frame = holder.task, frames.get(holder.thread)
    now = frames_of_task(task) if task is not None else application_frames(frame, 1)
    who = "task" if holder.task is not None else "thread"
    return f"at an unknown place, its {who} now at {describe(now[0])}" if now else "at an unknown place"
