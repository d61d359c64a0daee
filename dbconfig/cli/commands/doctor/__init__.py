"""`dbconfig doctor`: a summary of each database for on-call use, in about ten lines each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

from dbconfig.cli import value_display
from dbconfig.cli.commands.check.server import budget
from dbconfig.cli.commands.doctor.examination import Patient, examined
from dbconfig.cli.context import Context
from dbconfig.cli.exit_codes import FOUND, OK
from dbconfig.cli.output import counted, described
from dbconfig.config.risky_settings import advice
from dbconfig.errors.printable import printable
from dbconfig.errors.problem import Problem
from dbconfig.settings.loaded_profile import DEFAULT

_WIDTH: Final = 10  # of what a line is about
_SHOWN: Final = 300  # characters of a line


def run(context: Context) -> int:
    patients = []
    databases = context.databases()
    warnings = [each for each in advice(context.profile) if _database_of(each) in (None, *databases)]
    if not context.is_json:
        context.out.line(("bold", f"{'profile':<{_WIDTH}}"), f"  {context.headline().removeprefix('profile ')}")
        _warn(context, [each for each in warnings if _database_of(each) is None])
    for name, settings in databases.items():
        patient = examined(context, name, settings)
        patients.append(patient)
        if not context.is_json:
            _report(context, patient, [each for each in warnings if _database_of(each) == name])
    errors = [each for patient in patients for each in patient.problems() if each.severity == "error"]
    if context.is_json:
        document = {
            "profile": context.selection.name,
            "reason": context.reason,
            "healthy": not errors,
            "databases": {patient.name: _document(patient) for patient in patients},
            "warnings": [described(each) for each in warnings],
        }
        context.out.json("doctor", document)
    else:
        context.out.line()
        if errors:
            context.out.line(("error", f"{counted(len(errors), 'error')}:"), " see below")
        else:
            notes = list(_attention(patients, warnings))
            context.out.line(("good", "healthy"), f", but {', '.join(notes)}" if notes else "")
        context.out.problems(errors)
    return FOUND if errors else OK


def _attention(patients: list[Patient], warnings: list[Problem]) -> Iterator[str]:
    """Yield what needs attention but is not an error, and does not change the exit code."""
    several = len(patients) > 1
    for patient in patients:
        of = f" of {patient.name}" if several else ""
        for number, replica in enumerate(patient.replicas, 1):
            if replica.lag is not None and replica.lag.current is False:
                yield f"replica {number}{of} is behind"
        if patient.migrations is not None and patient.migrations.behind:
            yield f"migrations{of} are pending"
    found = len(warnings) + sum(each.severity == "warning" for patient in patients for each in patient.problems())
    if found:
        yield counted(found, "warning")


def _database_of(problem: Problem) -> str | None:
    """Return the database whose key a warning is about; None if it is about the files."""
    if not problem.key:
        return None
    first, _, rest = problem.key.partition(".")
    return rest.partition(".")[0] if first == "databases" and rest else DEFAULT


def _report(context: Context, patient: Patient, warnings: list[Problem]) -> None:
    """Write the summary of a database."""
    if patient.name != DEFAULT or len(context.databases()) > 1:
        context.out.line()
    styles = {
        "server": "good" if patient.server is not None else "error",
        "migrations": "warning" if patient.migrations is not None and patient.migrations.behind else "bold",
    }
    for what, text in _lines(patient):
        style = styles.get(what, "bold")
        context.out.line((style, f"{what:<{_WIDTH}}"), f"  {printable(text, _SHOWN)}")
    _warn(context, [*(each for each in patient.problems() if each.severity == "warning"), *warnings])


def _warn(context: Context, warnings: list[Problem]) -> None:
    for each in warnings:
        place = f" ({value_display.place(each.location)})" if each.location is not None else ""
        context.out.line(
            ("warning", f"{'warning':<{_WIDTH}}"), f"  {each.slug}: {printable(each.message, _SHOWN)}{place}"
        )


def _lines(patient: Patient) -> Iterator[tuple[str, str]]:
    settings, server = patient.settings, patient.server
    where = value_display.place(settings.origin("url" if settings.url is not None else "drivername"))
    yield "database", f"{patient.name}: {value_display.settings_address(settings)} ({where})"
    if server is None:
        yield "server", _unusable(patient)
    else:
        yield "server", f"{', '.join(filter(None, (server.version, patient.role)))}; answers in {_ms(patient.seconds)}"
        if server.tls:
            wanted = f"sslmode {settings.sslmode}" if settings.sslmode is not None else "no sslmode in the profile"
            yield "TLS", f"{server.tls}; {wanted}"
    yield "pool", _pool(patient)
    if server is not None and settings.backend == "postgresql":
        declared = "declared by `pgbouncer: true`" if settings.pgbouncer else "not declared in the profile"
        yield "pooler", f"PgBouncer or a similar pooler, {declared}" if server.pooler else "none"
    if server is not None and server.variables:
        yield "session", ", ".join(f"{key}={value}" for key, value in server.variables.items())
    for number, replica in enumerate(patient.replicas, 1):
        yield f"replica {number}", _replica(replica)
    if patient.migrations is not None:
        yield "migrations", str(patient.migrations)


def _unusable(patient: Patient) -> str:
    return "cannot be used: " + ", ".join(f"{each.message} [{each.slug}]" for each in patient.own)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _pool(patient: Patient) -> str:
    """Return the size of the pool and the connections that the server has left."""
    own = value_display.pool(patient.settings)
    server = patient.server
    if server is None or server.connections_free is None:
        return f"{own} in each process" if own != "in memory" else own
    made = budget(patient.settings, 1, 1, server.connections_free)
    free = f"{made.free} free of {server.connections_max} ({server.limited_by})"
    if math.isinf(made.each):
        return f"{own} in each process; the server has {free}"
    return f"{own} in each process; the server has {free}, room for {counted(int(made.free // made.each), 'such pool')}"


def _replica(replica: Patient) -> str:
    address = value_display.settings_address(replica.settings)
    if replica.server is None:
        return f"{address}: {_unusable(replica)}"
    lag = f", {replica.lag}" if replica.lag is not None else ""
    return f"{address}: {replica.role}{lag}; answers in {_ms(replica.seconds)}"


def _document(patient: Patient) -> dict[str, Any]:
    server, lag, migrations = patient.server, patient.lag, patient.migrations
    return {
        "address": value_display.settings_address(patient.settings),
        "reachable": server is not None,
        "seconds": round(patient.seconds, 6) if server is not None else None,
        "version": server.version if server is not None else None,
        "role": patient.role or None,
        "tls": server.tls or None if server is not None else None,
        "pooler": server.pooler if server is not None else None,
        "pool": {
            "size": patient.settings.pool_size,
            "overflow": patient.settings.max_overflow,
            "server_free": server.connections_free if server is not None else None,
            "server_max": server.connections_max if server is not None else None,
        },
        "session": dict(server.variables) if server is not None else {},
        "lag": None if lag is None else {"current": lag.current, "seconds": lag.seconds, "detail": str(lag)},
        "migrations": None
        if migrations is None
        else {"current": list(migrations.current), "heads": migrations.heads and list(migrations.heads)},
        "replicas": [_document(each) for each in patient.replicas],
        "problems": [described(each) for each in patient.own],
    }
