"""The verdicts on a server that answers: writes, clock, pool budget, idle timeouts, session variables."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from dbconfig.cli import value_display
from dbconfig.cli.commands.check.network import Step
from dbconfig.cli.commands.check.server import Budget, Server, budget
from dbconfig.cli.output import counted
from dbconfig.engine.connection_failures import Failure, problem
from dbconfig.errors import ConfigError
from dbconfig.errors.catalogue import CATALOGUE
from dbconfig.errors.problem import Problem
from dbconfig.settings import durations
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.known_drivers import family

CLOCK_TOLERANCE: Final = 1.0  # seconds; a request's timestamp should not be older than its transaction


@dataclass(frozen=True, slots=True)
class Deployment:
    """The size of the deployment: instances, worker processes per instance, and pools per process."""

    instances: int
    workers: int
    pools: int | None  # None: unspecified

    @property
    def processes(self) -> int:
        return self.instances * self.workers

    def __str__(self) -> str:
        pools = f"{counted(self.pools, 'pool')} × " if self.pools is not None else ""
        return f"{pools}{counted(self.workers, 'worker')} × {counted(self.instances, 'replica')}"


def judge(
    server: Server, settings: DatabaseSettings, name: str, deployment: Deployment, *, is_replica: bool = False
) -> tuple[list[Step], list[Problem]]:
    """Return a step for each verdict, and the problems."""
    steps: list[Step] = []
    problems: list[Problem] = []
    judgements = (
        _standby(server) if is_replica else _writes(server, settings, name),
        _clock(server, settings, name),
        _budget(server, settings, name, deployment),
        _recycle(server, settings, name),
        _session(server),
        _pooler(server, settings, name),
        _galera(server, settings, is_replica=is_replica),
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
    return Step("standby", detail=server.read_only or "it accepts writes, which read-only sessions never send"), None


def _clock(server: Server, settings: DatabaseSettings, name: str) -> _Judgement:
    if server.clock_ahead is None:
        return None, None
    off = abs(server.clock_ahead)
    span = f"{off / 86_400:.0f} days" if off >= 2 * 86_400 else f"{off:.1f} s"
    detail = f"{span} {'ahead' if server.clock_ahead > 0 else 'behind'}" if off >= 0.1 else "the same"
    if off <= CLOCK_TOLERANCE:
        return Step("clock", detail=detail), None
    return Step("clock", detail=detail), placed(
        "clock-skew", "url", f"the server's clock is {detail}", settings, name, warning=True
    )


def _budget(server: Server, settings: DatabaseSettings, name: str, deployment: Deployment) -> _Judgement:
    if server.connections_free is None:
        return None, None
    made = budget(settings, deployment.pools or 1, deployment.processes, server.connections_free)
    detail = (
        f"({settings.pool_size} + {settings.max_overflow}) × {deployment} = {number(made.wanted)} connections; "
        f"{made.free} free of {server.connections_max} ({server.limited_by})"
    )
    step = Step("pool", detail=detail, facts={"each": number(made.each), "processes": made.processes})
    step.facts |= {"pools": made.pools, "free": made.free}
    if not made.fits:
        message = f"{made.processes} processes may open {number(made.wanted)} connections"
        message = f"{message}, and the server has {made.free} free"
        return step, placed("pool-over-budget", "pool_size", message, settings, name, help=_sizes(made))
    both = budget(settings, 2, deployment.processes, server.connections_free)
    asked = deployment.processes > 1 and deployment.pools is None
    if both.fits or not asked or not _serves_both(settings):
        return step, None
    message = (
        f"synchronous and asynchronous sessions use separate pools: with both, {made.processes} processes may open "
        f"{number(both.wanted)} connections, and the server has {both.free} free"
    )
    help = f"{_sizes(both)}; --pools 1 if the application uses one kind"
    return step, placed("pool-over-budget", "pool_size", message, settings, name, help=help, warning=True)


def number(count: float) -> str:
    """Return a number of connections as text."""
    return "unlimited" if math.isinf(count) else f"{count:.0f}"


def _sizes(made: Budget) -> str:
    sizes = made.sizes()
    if sizes is None:
        return "even one connection each is too many: put PgBouncer in front, or raise max_connections"
    return f"pool_size: {sizes[0]} and max_overflow: {sizes[1]} would fit"


def _serves_both(settings: DatabaseSettings) -> bool:
    """Whether the application can have both kinds of sessions, with the drivers that are installed."""
    try:
        return bool(settings.driver() and settings.driver(asynchronous=True))
    except ConfigError:
        return False


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
    return Step("recycle", detail=detail), placed(
        "recycle-too-late", "pool_recycle", message, settings, name, help=help
    )


def _session(server: Server) -> _Judgement:
    if not server.variables:
        return None, None
    return Step("session", detail=", ".join(f"{key}={value}" for key, value in server.variables.items())), None


def _pooler(server: Server, settings: DatabaseSettings, name: str) -> _Judgement:
    if settings.backend != "postgresql":
        return None, None
    detail = "connected through a pooler such as PgBouncer" if server.pooler else "no pooler detected"
    step = Step("pooler", detail=detail)
    if not server.pooler or settings.pgbouncer:
        return step, None
    message = f"{detail}, which the profile does not declare"
    return step, placed("pooler-undeclared", "url", message, settings, name, warning=True)


def _galera(server: Server, settings: DatabaseSettings, *, is_replica: bool) -> _Judgement:
    """Say what a read finds of what was just committed on another node."""
    if server.node is None or server.nodes is None:
        return None, None
    detail = f"node {server.node}; {counted(server.nodes, 'node')}; "
    if not settings.read_your_writes:
        detail += "read_your_writes is off"
    elif settings.replicas or is_replica:
        detail += "read-only sessions wait for what their caller has committed"
    elif (server.sync_wait or 0) & 1:
        detail += f"reads wait for what was committed on any node (wsrep_sync_wait={server.sync_wait})"
    else:
        detail += (
            "a read on another node may miss the last commits: "
            "list the nodes as `replicas`, or write `variables: {wsrep_sync_wait: 1}`"
        )
    return Step("galera", detail=detail), None


def of_replica(found: Problem, name: str, number: int) -> Problem:
    """Return a problem of a replica with the path of the key in the file."""
    key = found.key.removeprefix(value_display.key_path(name, ""))
    return replace(found, key=value_display.key_path(name, f"replicas.{number}.{key}"))


def placed(
    slug: str, key: str, message: str, settings: DatabaseSettings, name: str, *, help: str = "", warning: bool = False
) -> Problem:
    """Return a problem at the location of a database's key."""
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
