"""The examination of a database: its primary, the lag of each replica, and the revision of its migrations."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from dbconfig.cli.commands.check.verdicts import Deployment, judge, of_replica
from dbconfig.cli.commands.doctor.lag import Lag, lag_of, written_so_far
from dbconfig.cli.commands.doctor.migrations import Migrations, migrations_of
from dbconfig.cli.context import Context, as_problem, connected
from dbconfig.errors import ConfigError
from dbconfig.errors.problem import Problem
from dbconfig.settings.database import DatabaseSettings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from dbconfig.cli.commands.check.server import Server

_ONE_PROCESS: Final = Deployment(instances=1, workers=1, pools=1)


@dataclass(slots=True)
class Patient:
    """A server of a database, and what was found.

    Attributes:
        name: of the database.
        settings: of the primary, or of the replica.
        seconds: time to log in and get an answer.
        server: what it reports about itself; None if it cannot be used.
        own: its problems.
        written: a position in its log, which replicas have to reach.
        lag: of a replica.
        migrations: of a primary; None if neither the database nor the project has any.
    """

    name: str
    settings: DatabaseSettings
    seconds: float = 0.0
    server: Server | None = None
    own: list[Problem] = field(default_factory=list)
    written: tuple[str, float] | None = None
    lag: Lag | None = None
    migrations: Migrations | None = None
    replicas: list[Patient] = field(default_factory=list)

    @property
    def role(self) -> str:
        """The server's role, in the terms of its system; "" if that has none."""
        if self.server is None or self.settings.is_generic or self.settings.backend == "sqlite":
            return ""
        if self.settings.backend != "postgresql":
            return "read-only" if self.server.read_only else "accepts writes"
        if self.server.standby:
            return "standby"
        return "primary, set to read-only" if self.server.read_only else "primary"

    def problems(self) -> Iterator[Problem]:
        """Yield the problems of the primary, then of each replica."""
        yield from self.own
        for replica in self.replicas:
            yield from replica.own


def examined(context: Context, name: str, settings: DatabaseSettings) -> Patient:
    """Examine a database: first its primary, then each replica."""
    patient = Patient(name, settings)
    _examine(context, patient, None, None)
    for number, own in enumerate(settings.replicas):
        replica = Patient(name, own)
        patient.replicas.append(replica)
        _examine(context, replica, number, patient.written)
    return patient


def _examine(context: Context, patient: Patient, replica: int | None, written: tuple[str, float] | None) -> None:
    settings = patient.settings
    limit = min(settings.connect_timeout, context.arguments.timeout)
    label, read_only = context.selection.name, replica is not None
    try:
        with connected(
            settings, label, read_only=read_only, connect_timeout=limit, application_name="dbconfig doctor"
        ) as reached:
            reached.call(lambda engine: _ask(context, engine, patient, written, is_replica=read_only))
    except ConfigError as error:
        patient.own += error.problems
    except Exception as error:  # drivers raise more than their own exceptions
        found = as_problem(error, settings, patient.name)
        patient.own.append(found if replica is None else of_replica(found, patient.name, replica))
    if patient.server is not None:
        _, judged = judge(patient.server, settings, patient.name, _ONE_PROCESS, is_replica=read_only)
        patient.own += judged if replica is None else [of_replica(each, patient.name, replica) for each in judged]


def _ask(
    context: Context, engine: Engine, patient: Patient, written: tuple[str, float] | None, *, is_replica: bool
) -> None:
    from dbconfig.cli.commands.check.server import look

    begin = time.perf_counter()
    with engine.connect() as connection:
        patient.server = look(connection, patient.settings)
        patient.seconds = time.perf_counter() - begin
        if is_replica:
            patient.lag = lag_of(connection, written)
            return
        if patient.settings.replicas:
            patient.written = written_so_far(connection)
        patient.migrations = migrations_of(connection, context.folder.project)
