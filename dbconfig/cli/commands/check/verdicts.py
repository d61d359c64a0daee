"""What is judged of a server that answers: writes, clock, budget of the pool, idle timeouts, session variables."""

from __future__ import annotations

import math
from typing import Final

from dbconfig.cli import value_display
from dbconfig.cli.commands.check.network import Step
from dbconfig.cli.commands.check.server import Server, budget
from dbconfig.cli.output import counted
from dbconfig.engine.connection_failures import Failure, problem
from dbconfig.errors.catalogue import CATALOGUE
from dbconfig.errors.problem import Problem
from dbconfig.settings import durations
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.known_drivers import family

CLOCK_TOLERANCE: Final = 1.0  # seconds; a time stamp of a request should not be older than its transaction


def judge(
    server: Server, settings: DatabaseSettings, name: str, workers: int, replicas: int, *, is_replica: bool = False
) -> tuple[list[Step], list[Problem]]:
    """Return a step for each judgement, and the problems."""
    steps: list[Step] = []
    problems: list[Problem] = []
    judgements = (
        _standby(server) if is_replica else _writes(server, settings, name),
        _clock(server, settings, name),
        _budget(server, settings, name, workers, replicas),
        _recycle(server, settings, name),
        _session(server),
        _pooler(server, settings, name),
    )
    for step, found in judgements:
        if step is not None:
            if found is not None:
                step.facts["problem" if found.severity == "error" else "warning"] = found.slug
            steps.append(step)
        if found is not None:
            problems.append(found)
    return steps, problems


_Judgement = tuple[Step | None, Problem | None]


def _writes(server: Server, settings: DatabaseSettings, name: str) -> _Judgement:
    if not server.read_only:
        return None, None
    return Step("writes", detail=server.read_only), problem(Failure("read-only", "query", ""), settings, name)


def _standby(server: Server) -> _Judgement:
    return Step("standby", detail=server.read_only or "it accepts writes, which reading sessions never send"), None


def _clock(server: Server, settings: DatabaseSettings, name: str) -> _Judgement:
    if server.clock_ahead is None:
        return None, None
    off = abs(server.clock_ahead)
    span = f"{off / 86_400:.0f} days" if off >= 2 * 86_400 else f"{off:.1f} s"
    detail = f"{span} {'ahead' if server.clock_ahead > 0 else 'behind'}" if off >= 0.1 else "the same"
    if off <= CLOCK_TOLERANCE:
        return Step("clock", detail=detail), None
    return Step("clock", detail=detail), _found(
        "clock-skew", "url", f"the server's clock is {detail}", settings, name, warning=True
    )


def _budget(server: Server, settings: DatabaseSettings, name: str, workers: int, replicas: int) -> _Judgement:
    if server.connections_free is None:
        return None, None
    made = budget(settings, workers * replicas, server.connections_free)
    each = "unlimited" if math.isinf(made.each) else f"{made.each:.0f}"
    wanted = "unlimited" if math.isinf(made.wanted) else f"{made.wanted:.0f}"
    detail = (
        f"({settings.pool_size} + {settings.max_overflow}) × {counted(workers, 'worker')} "
        f"× {counted(replicas, 'replica')} = {wanted} connections; "
        f"{made.free} free of {server.connections_max} ({server.limited_by})"
    )
    step = Step("pool", detail=detail, facts={"each": each, "processes": made.processes, "free": made.free})
    if made.fits:
        return step, None
    sizes = made.sizes()
    fix = (
        f"pool_size: {sizes[0]} and max_overflow: {sizes[1]} would fit"
        if sizes is not None
        else "not even one connection each fits: put PgBouncer between, or raise max_connections"
    )
    message = f"{made.processes} processes may open {wanted} connections, and the server has {made.free} free"
    return step, _found("pool-over-budget", "pool_size", message, settings, name, help=fix)


def _recycle(server: Server, settings: DatabaseSettings, name: str) -> _Judgement:
    if server.idle_timeout is None:
        return None, None
    limit, own = durations.written(server.idle_timeout), durations.written(settings.pool_recycle)
    late = settings.pool_recycle < 0 or settings.pool_recycle >= server.idle_timeout
    detail = f"pool_recycle {own}, the server closes idle connections after {limit} ({server.idle_timeout_name})"
    if not late or settings.pool_pre_ping:
        return Step("recycle", detail=detail), None
    message = f"the server closes idle connections after {limit}, before pool_recycle ({own}) replaces them"
    help = f"pool_recycle below {limit}, or `pool_pre_ping: true`"
    return Step("recycle", detail=detail), _found(
        "recycle-too-late", "pool_recycle", message, settings, name, help=help
    )


def _session(server: Server) -> _Judgement:
    if not server.variables:
        return None, None
    return Step("session", detail=", ".join(f"{key}={value}" for key, value in server.variables.items())), None


def _pooler(server: Server, settings: DatabaseSettings, name: str) -> _Judgement:
    if settings.backend != "postgresql":
        return None, None
    detail = "a pooler such as PgBouncer stands between" if server.pooler else "no pooler seen between"
    step = Step("pooler", detail=detail)
    if not server.pooler or settings.pgbouncer:
        return step, None
    message = f"{detail}, and the profile does not say so"
    return step, _found("pooler-undeclared", "url", message, settings, name, warning=True)


def _found(
    slug: str, key: str, message: str, settings: DatabaseSettings, name: str, *, help: str = "", warning: bool = False
) -> Problem:
    location = settings.origin(key)
    if location.line is None and not location.variable:
        location = settings.origin("url" if settings.url is not None else "drivername")
    return Problem(
        slug,
        message,
        location,
        value_display.key_path(name, key),
        help or CATALOGUE[slug].advice(family(settings.backend)),
        severity="warning" if warning else "error",
    )
