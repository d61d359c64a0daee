"""`dbconfig wait`: wait until the database answers; fail immediately on a permanent error."""

from __future__ import annotations

import time
from typing import Any

from dbconfig.cli.context import Context, as_problem, connected
from dbconfig.cli.exit_codes import FOUND, OK
from dbconfig.cli.output import described
from dbconfig.errors.problem import Problem
from dbconfig.settings.database import DatabaseSettings


def run(context: Context) -> int:
    answers: dict[str, Any] = {}
    deadline = time.monotonic() + context.arguments.timeout
    for name, settings in context.databases().items():
        begin = time.monotonic()
        found = _wait(context, name, settings, max(deadline - begin, 0.1))
        spent = time.monotonic() - begin
        answers[name] = {
            "ok": found is None,
            "seconds": round(spent, 3),
            "problem": described(found) if found else None,
        }
        if context.is_json:
            continue
        if found is not None:
            context.out.problems([found])
        else:
            context.out.line(f"{context.selection.name}/{name}: answers, after {spent:.1f} s ({context.reason})")
    if context.is_json:
        context.out.json("wait", {"profile": context.selection.name, "reason": context.reason, "databases": answers})
    return OK if all(answer["ok"] for answer in answers.values()) else FOUND


def _wait(context: Context, name: str, settings: DatabaseSettings, timeout: float) -> Problem | None:
    from dbconfig.engine import probes

    told: list[str] = []

    def report(error: BaseException) -> None:
        found = as_problem(error, settings, name)
        if found.slug not in told:  # each reason once: a log of a slow start has three lines, not three hundred
            told.append(found.slug)
            context.out.note(f"waiting for {context.selection.name}/{name}: {found.slug}: {found.message}")

    with connected(settings, context.selection.name) as reached:
        try:
            probes.wait(reached.engine, settings, timeout, report, reached.call)
        except Exception as error:  # drivers raise more than their own exceptions: OSError, RuntimeError
            return as_problem(error, settings, name)
    return None
