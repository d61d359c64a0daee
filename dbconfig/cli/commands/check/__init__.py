"""`dbconfig check`: can the databases be reached, and does the pool fit the server? Step by step, with times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any, Final

from dbconfig.cli import FOUND, OK, value_display
from dbconfig.cli.commands.check import network
from dbconfig.cli.commands.check.network import Step
from dbconfig.cli.commands.check.verdicts import judge
from dbconfig.cli.context import Context
from dbconfig.cli.output import described
from dbconfig.engine.connection_failures import classify, problem
from dbconfig.errors import ConfigError
from dbconfig.errors.printable import printable
from dbconfig.errors.problem import Problem
from dbconfig.settings.database import DatabaseSettings

_WIDTH: Final = 8  # of a step's name


def run(context: Context) -> int:
    if not context.is_json:
        context.out.line(context.headline())
    documents: dict[str, Any] = {}
    code = OK
    for name, settings in context.databases().items():
        steps, problems = _check(context, name, settings)
        if any(each.severity == "error" for each in problems):
            code = FOUND
        documents[name] = {
            "address": value_display.settings_address(settings),
            "steps": [_described(step) for step in steps],
            "problems": [described(each) for each in problems],
        }
    if context.is_json:
        context.out.json("check", {"profile": context.selection.name, "reason": context.reason, "databases": documents})
    return code


def _check(context: Context, name: str, settings: DatabaseSettings) -> tuple[list[Step], list[Problem]]:
    if not context.is_json:
        context.out.line()
        where = value_display.place(settings.origin("url" if settings.url is not None else "drivername"))
        context.out.line(
            context.out.paint("bold", f"database {name}: {value_display.settings_address(settings)} ({where})")
        )
    steps: list[Step] = []
    problems: list[Problem] = []
    try:
        for step in _steps(context, name, settings, problems):
            steps.append(step)
            if not context.is_json:
                _write(context, step)
    except ConfigError as error:
        problems += error.problems
    answers = any(step.name == "query" and step.failure is None for step in steps)
    for step in steps:
        if step.failure is not None:
            found = problem(step.failure, settings, name, step.target)
            # Of several servers one may be down.
            problems.append(replace(found, severity="warning") if answers else found)
    if problems and not context.is_json:
        context.out.line()
        context.out.problems(problems)
    return steps, problems


def _steps(context: Context, name: str, settings: DatabaseSettings, problems: list[Problem]) -> Iterator[Step]:
    timeout = context.arguments.timeout
    if settings.backend != "sqlite":
        reached = False
        for host, port in network.targets(settings):
            step: Step | None = None
            for step in network.approach(settings, host, port, timeout):
                yield step
            reached |= step is not None and step.failure is None
        if network.targets(settings) and not reached:
            return
    yield from _login(context, name, settings, problems)


def _login(context: Context, name: str, settings: DatabaseSettings, problems: list[Problem]) -> Iterator[Step]:
    from sqlalchemy.exc import SQLAlchemyError

    from dbconfig.cli.commands.check.server import look
    from dbconfig.cli.trouble import engine_of

    limit = min(settings.connect_timeout, context.arguments.timeout)
    stage, begin = "open" if settings.backend == "sqlite" else "login", time.perf_counter()
    try:
        with (
            engine_of(settings, context.selection.name, connect_timeout=limit) as engine,
            engine.connect() as connection,
        ):
            yield Step(stage, time.perf_counter() - begin, _identity(settings))
            stage, begin = "query", time.perf_counter()
            server = look(connection, settings)
            what = [server.version, f"role {server.role}" if server.role else "", server.encoding, server.tls]
            yield Step("query", time.perf_counter() - begin, ", ".join(filter(None, what)), facts=asdict(server))
        steps, judged = judge(server, settings, name, context.arguments.workers, context.arguments.replicas)
        yield from steps
        problems += judged
    except (
        SQLAlchemyError,
        OSError,
        RuntimeError,
        ValueError,
        TypeError,
    ) as error:  # drivers raise more than their own
        yield Step(stage, time.perf_counter() - begin, failure=classify(error, settings))


def _identity(settings: DatabaseSettings) -> str:
    address = settings.address
    if settings.backend == "sqlite":
        return str(settings.path or address.database or ":memory:")
    return f"user {address.username or '(the system user)'}, database {address.database or '(none)'}"


def _write(context: Context, step: Step) -> None:
    paint = context.out.paint
    if step.failure is not None:
        sign, detail = paint("error", "failed"), f"{step.failure.slug}: {step.failure.words}".removesuffix(": ")
    elif step.facts.get("problem"):
        sign, detail = paint("error", "bad   "), step.detail
    elif step.facts.get("warning"):
        sign, detail = paint("warning", "warn  "), step.detail
    else:
        sign, detail = paint("good", "ok    "), step.detail
    spent = f"{step.seconds * 1000:>8.1f} ms" if step.seconds else " " * 11
    context.out.line(f"  {sign}  {step.name:<{_WIDTH}} {spent}  {printable(detail, 300)}".rstrip())


def _described(step: Step) -> dict[str, Any]:
    return {
        "name": step.name,
        "ok": step.failure is None and not step.facts.get("problem"),
        "seconds": round(step.seconds, 6),
        "detail": step.detail,
        "failure": step.failure.slug if step.failure is not None else None,
        "facts": {key: value for key, value in step.facts.items() if value is not None},
    }
