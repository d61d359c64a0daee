"""`dbconfig check`: can the databases be reached, and does the pool fit the server? Step by step, with times."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final

from dbconfig.cli import value_display
from dbconfig.cli.commands.check import network
from dbconfig.cli.commands.check.network import Step
from dbconfig.cli.commands.check.together import Guest, shared
from dbconfig.cli.commands.check.verdicts import Deployment, judge, of_replica
from dbconfig.cli.context import Context, connected
from dbconfig.cli.exit_codes import FOUND, OK
from dbconfig.cli.output import described
from dbconfig.engine.connection_failures import classify, problem
from dbconfig.errors import ConfigError
from dbconfig.errors.printable import printable
from dbconfig.errors.problem import Problem
from dbconfig.settings import client_defaults
from dbconfig.settings.database import DatabaseSettings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from dbconfig.cli.commands.check.server import Server

_WIDTH: Final = 8  # of a step's name


def run(context: Context) -> int:
    if not context.is_json:
        context.out.line(context.headline())
    documents: dict[str, Any] = {}
    guests: list[Guest] = []
    code = OK
    for name, settings in context.databases().items():
        checks = [_Check(context, name, settings)]
        checks += [_Check(context, name, each, number) for number, each in enumerate(settings.replicas)]
        for check in checks:
            check.run()
        if any(problem.severity == "error" for check in checks for problem in check.problems):
            code = FOUND
        primary, *replicas = (check.described() for check in checks)
        documents[name] = primary | {"replicas": replicas}
        guests += [guest for check in checks if (guest := check.guest) is not None]
    servers, together = _together(context, guests)
    if context.is_json:
        found = {"profile": context.selection.name, "reason": context.reason, "databases": documents}
        context.out.json("check", found | {"servers": servers})
    return FOUND if together else code


def _together(context: Context, guests: list[Guest]) -> tuple[list[dict[str, Any]], list[Problem]]:
    """Report the combined demand on each shared server; return it, and the problems."""
    arguments = context.arguments
    deployment = Deployment(arguments.replicas, arguments.workers, arguments.pools)
    found = [(each, each.problem()) for each in shared(guests, deployment)]
    problems = [problem for _, problem in found if problem is not None]
    if found and not context.is_json:
        context.out.line()
        context.out.line(("bold", "together, on one server"))
        for each, problem in found:
            sign = ("good", "ok    ") if problem is None else ("error", "bad   ")
            context.out.line("  ", sign, "  ", printable(each.text(deployment), 400))
        if problems:
            context.out.line()
            context.out.problems(problems)
    servers = [
        each.described() | {"problems": [described(problem)] if problem is not None else []} for each, problem in found
    ]
    return servers, problems


class _Check:
    """The steps to one server of a database: its primary, or one of its replicas, by number."""

    def __init__(self, context: Context, name: str, settings: DatabaseSettings, replica: int | None = None) -> None:
        self.steps: list[Step] = []
        self.problems: list[Problem] = []
        self.guest: Guest | None = None  # where the server answered
        self._context = context
        self._name = name
        self._settings = settings
        self._replica = replica

    def run(self) -> None:
        context = self._context
        if not context.is_json:
            context.out.line()
            context.out.line(("bold", self._title()))
        try:
            self._walk()
        except ConfigError as error:
            self.problems += error.problems
        answers = any(step.name == "query" and step.failure is None for step in self.steps)
        for step in self.steps:
            if step.failure is not None:
                found = self._placed(problem(step.failure, self._settings, self._name, step.target))
                # Of several servers one may be down.
                self.problems.append(replace(found, severity="warning") if answers else found)
        if self.problems and not context.is_json:
            context.out.line()
            context.out.problems(self.problems)

    def described(self) -> dict[str, Any]:
        return {
            "address": value_display.settings_address(self._settings),
            "steps": [_described(step) for step in self.steps],
            "problems": [described(each) for each in self.problems],
        }

    def _title(self) -> str:
        if self._replica is None:
            where = value_display.place(
                self._settings.origin("url" if self._settings.url is not None else "drivername")
            )
            what = f"database {self._name}"
        else:
            primary = self._context.profile.databases[self._name]
            where = value_display.replica_place(primary, self._replica)
            what = f"replica {self._replica + 1} of {self._name}"
        return f"{what}: {value_display.settings_address(self._settings)} ({where})"

    def _placed(self, found: Problem) -> Problem:
        return found if self._replica is None else of_replica(found, self._name, self._replica)

    def _add(self, step: Step) -> None:
        self.steps.append(step)
        if not self._context.is_json:
            _write(self._context, step)

    def _walk(self) -> None:
        settings = self._settings
        named = settings.backend != "sqlite" and not settings.is_generic  # which only its driver can reach
        targets = network.targets(settings) if named else []
        reached = not targets
        for host, port in targets:
            failed = False
            for step in network.approach(settings, host, port, self._context.arguments.timeout):
                self._add(step)
                failed = step.failure is not None
            reached |= not failed
        if reached:
            self._log_in()

    def _log_in(self) -> None:
        from sqlalchemy.exc import SQLAlchemyError

        settings, arguments = self._settings, self._context.arguments
        limit = min(settings.connect_timeout, arguments.timeout)
        attempt = _Attempt("open" if settings.backend == "sqlite" else "login")
        try:
            with connected(
                settings, self._context.selection.name, read_only=self._replica is not None, connect_timeout=limit
            ) as database:
                server = database.call(lambda engine: self._look(engine, attempt))
        # Drivers raise more than their own exceptions.
        except (SQLAlchemyError, OSError, EOFError, RuntimeError, ValueError, TypeError) as error:
            if isinstance(error, ConfigError):
                raise
            self._add(Step(attempt.stage, attempt.seconds, failure=classify(error, settings)))
            return
        name = self._name if self._replica is None else f"replica {self._replica + 1} of {self._name}"
        self.guest = Guest(name, self._name, settings, server)
        deployment = Deployment(arguments.replicas, arguments.workers, arguments.pools)
        steps, judged = judge(server, settings, self._name, deployment, is_replica=self._replica is not None)
        for step in steps:
            self._add(step)
        self.problems += [self._placed(each) for each in judged]

    def _look(self, engine: Engine, attempt: _Attempt) -> Server:
        from dbconfig.cli.commands.check.server import look

        with engine.connect() as connection:
            login = Step(attempt.stage, attempt.seconds)
            attempt.begin("query")
            server: Server | None = None
            try:
                server = look(connection, self._settings)
            finally:
                login.detail = _identity(self._settings, server)
                self._add(login)
            what = [server.version, f"role {server.role}" if server.role else "", server.encoding, server.tls]
            self._add(Step("query", attempt.seconds, ", ".join(filter(None, what)), facts=asdict(server)))
        return server


class _Attempt:
    """The progress of a login, and when it began."""

    def __init__(self, stage: str) -> None:
        self.begin(stage)

    def begin(self, stage: str) -> None:
        self.stage = stage
        self._begin = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._begin


def _identity(settings: DatabaseSettings, server: Server | None) -> str:
    """Return the user and the database of a login, from the server if neither the profile nor a library sets them."""
    address = client_defaults.completed(settings)
    if settings.backend == "sqlite":
        return str(settings.path or address.database or ":memory:")
    if settings.is_generic and address.username is None:
        return address.database or settings.backend
    user = address.username or (server.role if server is not None else "")
    database = address.database or (server.database if server is not None else "")
    return f"user {user or '(the system user)'}, database {database or '(none)'}"


def _write(context: Context, step: Step) -> None:
    if step.failure is not None:
        sign, detail = ("error", "failed"), f"{step.failure.slug}: {step.failure.words}".removesuffix(": ")
    elif step.facts.get("problem"):
        sign, detail = ("error", "bad   "), step.detail
    elif step.facts.get("warning"):
        sign, detail = ("warning", "warn  "), step.detail
    else:
        sign, detail = ("good", "ok    "), step.detail
    spent = f"{step.seconds * 1000:>8.1f} ms" if step.seconds else " " * 11
    context.out.line("  ", sign, f"  {step.name:<{_WIDTH}} {spent}  {printable(detail, 300)}".rstrip())


def _described(step: Step) -> dict[str, Any]:
    return {
        "name": step.name,
        "ok": step.failure is None and not step.facts.get("problem"),
        "seconds": round(step.seconds, 6),
        "detail": step.detail,
        "failure": step.failure.slug if step.failure is not None else None,
        "facts": {key: value for key, value in step.facts.items() if value is not None},
    }
