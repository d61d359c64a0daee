"""`dbconfig ping`: does the database answer? One query."""

from __future__ import annotations

from typing import Any

from dbconfig.cli.context import Context, as_problem, connected
from dbconfig.cli.exit_codes import FOUND, OK
from dbconfig.cli.output import described


def run(context: Context) -> int:
    from dbconfig.engine import probes

    answers: dict[str, Any] = {}
    code = OK
    for name, settings in context.databases().items():
        with connected(settings, context.selection.name) as reached:
            try:
                seconds = probes.ping(reached.engine, context.arguments.timeout, reached.call)
            except Exception as error:  # drivers raise more than their own exceptions: OSError, RuntimeError
                found = as_problem(error, settings, name)
                code = FOUND
                answers[name] = {"ok": False, "seconds": None, "problem": described(found)}
                if not context.is_json:
                    context.out.problems([found])
            else:
                answers[name] = {"ok": True, "seconds": round(seconds, 6), "problem": None}
                if not context.is_json:
                    context.out.line(
                        f"{context.selection.name}/{name}: answers in {seconds * 1000:.1f} ms ({context.reason})"
                    )
    if context.is_json:
        context.out.json("ping", {"profile": context.selection.name, "reason": context.reason, "databases": answers})
    return code
