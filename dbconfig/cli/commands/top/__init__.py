"""`dbconfig top`: who uses the servers of a profile now, and the pools of a process that shows them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.request import Request, urlopen

from dbconfig.cli.context import Context, as_problem, connected
from dbconfig.cli.exit_codes import FOUND, OK
from dbconfig.cli.output import described
from dbconfig.errors import ConfigError
from dbconfig.errors.problem import Problem

if TYPE_CHECKING:
    from dbconfig.cli.commands.top.server import Seen

URL_TIMEOUT: Final = 5.0  # seconds
_NO_RICH: Final = "a display that refreshes needs rich, which is not installed"

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
    from dbconfig.cli.commands.top import server

    answers: dict[str, Any] = {}
    problems: list[Problem] = []
    tables: list[Table] = []
    for name, settings in context.databases().items():
        try:
            with connected(settings, context.selection.name, application_name="dbconfig top") as reached:
                seen = reached.call(server.look)
        except Exception as error:  # drivers raise more than their own
            found = as_problem(error, settings, name)
            problems.append(found)
            answers[name] = {"server": None, "problem": described(found)}
            continue
        answers[name] = {"server": None if seen is None else seen.as_dict(), "problem": None}
        if seen is not None:
            tables += _tables(name, seen)
    pools = _pools(context.arguments.url) if context.arguments.url else None
    if pools is not None:
        tables += _tables_of_pools(pools)
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


def _pools(url: str) -> dict[str, Any]:
    """Return what `/health/db/details` of an application says.

    Raises:
        ConfigError: it is no such page, or cannot be reached.
    """
    try:
        if not url.startswith(("http://", "https://")):
            raise ValueError("it is not an HTTP address")
        with urlopen(Request(url, headers={"Accept": "application/json"}), timeout=URL_TIMEOUT) as answer:  # noqa: S310  # looked at above
            found = json.loads(answer.read(1_000_000))
        if not isinstance(found, dict) or not isinstance(found.get("pools"), dict):
            raise ValueError("it has no `pools`")
    except (OSError, ValueError) as error:
        help = "give the address of /health/db/details: docs/observability.md"
        raise ConfigError([Problem("invalid-value", f"--url shows no pools: {error}", help=help)]) from error
    return found


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
    from rich.console import Group
    from rich.table import Table as Drawn
    from rich.text import Text

    parts: list[Any] = [Text(f"{context.selection.name}, every {context.arguments.interval:g} s; Ctrl-C ends")]
    for title, header, rows in tables:
        drawn = Drawn(title=Text(title), title_justify="left", show_header=bool(header), expand=False)
        for each in header or ("",):
            drawn.add_column(Text(each))
        for row in rows:
            drawn.add_row(*map(Text, row))
        parts.append(drawn)
    parts += [Text(problem.message, style="red") for problem in problems]
    return Group(*parts)
