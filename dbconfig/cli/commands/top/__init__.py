"""`dbconfig top`: the current clients of a profile's servers, and the pools of a process that exposes them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from dbconfig.cli.context import Context, as_problem, connected
from dbconfig.cli.exit_codes import FOUND, OK
from dbconfig.cli.output import described
from dbconfig.errors import ConfigError
from dbconfig.errors.problem import Problem

if TYPE_CHECKING:
    from dbconfig.cli.commands.top.server import Seen

_NO_RICH: Final = "the refreshing display needs rich, which is not installed"
_NUMBER: Final = re.compile(r"-|\d+(\.\d+ s)?")

Rows = list[tuple[str, ...]]
Table = tuple[str, tuple[str, ...], Rows]  # title, header, rows


def run(context: Context) -> int:
    arguments = context.arguments
    if arguments.once or context.is_json:
        return _once(context)
    try:
        from rich.live import Live
    except ImportError as error:
        help = "pip install 'sqlmodel-dbconfig[top]', or `dbconfig top --once`"
        raise ConfigError([Problem("missing-driver", _NO_RICH, help=help)]) from error
    with Live(auto_refresh=False, screen=True) as live:
        while True:
            _, problems, tables = _look(context)
            live.update(_drawn(context, problems, tables), refresh=True)
            time.sleep(arguments.interval)


def _once(context: Context) -> int:
    databases, problems, tables = _look(context)
    if context.is_json:
        context.out.json("top", {"profile": context.selection.name, "reason": context.reason, **databases})
    else:
        context.out.line(context.headline())
        for title, header, rows in tables:
            context.out.line("")
            context.out.line(("bold", title))
            context.out.table(rows, header, "  ")
        context.out.problems(problems)
    return FOUND if problems else OK


def _look(context: Context) -> tuple[dict[str, Any], list[Problem], list[Table]]:
    from dbconfig.cli.commands.top import application, server

    arguments = context.arguments
    own_header = application.header(arguments.header, context.environment)
    pools = application.pools(arguments.url, own_header) if arguments.url else None
    answers: dict[str, Any] = {}
    problems: list[Problem] = []
    tables: list[Table] = []
    for name, settings in context.databases().items():
        try:
            with connected(settings, context.selection.name, application_name="dbconfig top") as reached:
                seen = reached.call(server.look)
        except Exception as error:  # drivers raise more than their own exceptions
            found = as_problem(error, settings, name)
            problems.append(found)
            answers[name] = {"server": None, "problem": described(found)}
            continue
        answers[name] = {"server": None if seen is None else seen.as_dict(), "problem": None}
        if seen is not None:
            tables += _tables(name, seen)
    if pools is not None:
        tables = [*_tables_of_pools(pools), *tables]
    return {"databases": answers, "pools": None if pools is None else pools["pools"]}, problems, tables


def _tables(name: str, seen: Seen) -> Iterator[Table]:
    states: Rows = [(each, state, str(count)) for each, state, count in seen.applications]
    yield f"{name}: {seen.used} of {seen.slots} connections", ("application", "state", "connections"), states
    if seen.transactions:
        rows: Rows = [(each, state, f"{age:.1f} s", str(number)) for each, state, age, number in seen.transactions]
        yield f"{name}: oldest open transactions", ("application", "state", "for", "session"), rows
    if seen.blockers:
        rows = [(f"{who} ({w})", f"{by} ({b})", f"{age:.1f} s") for w, who, b, by, age in seen.blockers]
        yield f"{name}: blocked", ("waits", "for", "since"), rows


def _tables_of_pools(found: dict[str, Any]) -> Iterator[Table]:
    names = ("used", "idle", "waiting", "max", "timeouts", "refused", "leaks")
    rows: Rows = [
        (str(name), *("-" if pool.get(each) is None else str(pool.get(each)) for each in names))
        for name, pool in found["pools"].items()
        if isinstance(pool, dict)
    ]
    yield "pools", ("pool", *names), rows
    said = found.get("advice")
    if isinstance(said, list) and said:
        yield "advice", (), [(str(line),) for line in said]


def _drawn(context: Context, problems: list[Problem], tables: list[Table]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table as Drawn
    from rich.text import Text

    parts: list[Any] = [Text(f"{context.selection.name}, every {context.arguments.interval:g} s; Ctrl-C ends")]
    for title, header, rows in tables:
        # As few lines as possible: lines below the bottom of the window are not visible.
        drawn = Drawn(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=bool(header))
        for number, each in enumerate(header or ("",)):
            # Numbers are right-aligned; "-" is an unknown one.
            is_number = bool(header) and all(_NUMBER.fullmatch(row[number]) for row in rows)
            drawn.add_column(Text(each), justify="right" if is_number else "left")
        for row in rows:
            drawn.add_row(*map(Text, row))
        parts += [Text(), Text(title, style="bold"), drawn]
    parts += [Text(problem.message, style="red") for problem in problems]
    return Group(*parts)
