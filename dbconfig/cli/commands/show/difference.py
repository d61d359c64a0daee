"""Two profiles side by side."""

from __future__ import annotations

from typing import Any

from dbconfig.cli import value_display
from dbconfig.cli.context import Context
from dbconfig.cli.exit_codes import OK
from dbconfig.cli.offline import Survey, named, survey
from dbconfig.config.active_profile import select
from dbconfig.errors import ConfigError
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.environment_variables import Environment


def compare(context: Context, other: str) -> int:
    """Write the differences between the selected profile and another one; neither needs its variables to be set."""
    selected = context.selection.name
    select(other, Environment({}), context.folder)  # raises with the names that exist
    left = _surveyed(context, selected)
    right = _surveyed(context, other)
    rows = _rows(left, right, every=context.arguments.all)
    if context.is_json:
        document = {
            "profiles": [left.name, right.name],
            "reason": context.reason,
            "keys": [
                {"key": key, "values": [one, two], "origins": [here, there], "differs": differs}
                for key, one, here, two, there, differs in rows
            ],
        }
        context.out.json("diff", document)
        return OK
    context.out.line(f"{left.name} ({context.reason}) and {right.name}")
    context.out.line()
    table = [
        (("≠" if differs else "=") if context.arguments.all else "", key, one, two, f"{here} | {there}")
        for key, one, here, two, there, differs in rows
    ]
    if context.arguments.all:
        context.out.table(table, ("", "KEY", left.name, right.name, "FROM"))
    else:
        context.out.table([row[1:] for row in table], ("KEY", left.name, right.name, "FROM"))
        if not table:
            context.out.line("no differences")
    return OK


def _surveyed(context: Context, name: str) -> Survey:
    found = survey(context.folder, context.environment, name, own=name == context.selection.name)
    if found.profile is None:
        raise ConfigError(found.problems) if found.problems else RuntimeError(f"{name} depends on its variables")
    return found


def _rows(left: Survey, right: Survey, *, every: bool) -> list[tuple[str, str, str, str, str, bool]]:
    assert left.profile is not None
    assert right.profile is not None
    rows = []
    for database in dict.fromkeys((*left.profile.databases, *right.profile.databases)):
        one, two = left.profile.databases.get(database), right.profile.databases.get(database)
        for key in DatabaseSettings.model_fields:
            here, there = _value(one, key, left, database), _value(two, key, right, database)
            # For a database that one of them lacks, only the keys that are set are shown, not the defaults.
            lone = (one or two) if one is None or two is None else None
            if (here != there or every) and (lone is None or every or lone.layers(key)):
                sides = (here, _origin(one, key), there, _origin(two, key))
                rows.append((value_display.key_path(database, key), *sides, here != there))
    return rows


def _value(settings: DatabaseSettings | None, key: str, of: Survey, database: str) -> str:
    if settings is None:
        return "(no such database)"
    variables = of.unknown(value_display.key_path(database, key))
    if variables and key != "url":
        return " ".join(f"${{{name}}}" for name in variables)
    value: Any = value_display.setting(settings, key)
    return named(value_display.text(value, key))


def _origin(settings: DatabaseSettings | None, key: str) -> str:
    return value_display.place(settings.origin(key)) if settings is not None else "-"
