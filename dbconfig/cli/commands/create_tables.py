"""`dbconfig create-tables`: create missing tables."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import SQLAlchemyError

from dbconfig.cli.context import Context, as_problem, connected
from dbconfig.cli.exit_codes import FAILED, FOUND, OK
from dbconfig.errors import ConfigError
from dbconfig.errors.printable import did_you_mean, printable, quoted, suggest
from dbconfig.errors.problem import Problem
from dbconfig.settings.loaded_profile import DEFAULT

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table

    from dbconfig.settings.database import DatabaseSettings

_EMPTY: Final = "{} has no tables: import the modules of your models in that module"


def run(context: Context) -> int:
    metadata = _metadata(context)
    if metadata is None:
        return FAILED
    tables = _tables(metadata, context.arguments.tables)
    context.arguments.database = database = context.arguments.database or DEFAULT
    settings = context.profile.database(database)
    created: list[str] = []
    if tables:
        try:
            created = _created(context, settings, tables)
        except (SQLAlchemyError, OSError) as error:
            context.out.problems([as_problem(error, settings, database)])
            return FOUND
    else:
        context.out.note(f"note: {_EMPTY.format(quoted(context.arguments.metadata))}")
    names = [table.fullname for table in tables]
    if context.is_json:
        answer = {"created": created, "existing": [name for name in names if name not in created]}
        selected = {"profile": context.selection.name, "reason": context.reason, "database": database}
        context.out.json("create-tables", {**selected, **answer})
        return OK
    context.out.line(f"{context.selection.name}/{database} ({context.reason})")
    for name in names:
        context.out.line(f"  {'created' if name in created else 'exists '}  {name}")
    return OK


def _created(context: Context, settings: DatabaseSettings, tables: list[Table]) -> list[str]:
    from dbconfig.config.protected_databases import refuse_elsewhere
    from dbconfig.engine import create_tables

    refuse_elsewhere(
        context.profile,
        settings,
        "create tables",
        destructive=False,
        path=context.arguments.config,
        environ=context.environ,
    )
    with connected(settings, context.selection.name) as database:
        return database.call(lambda engine: create_tables.create(engine, tables))


def _metadata(context: Context) -> MetaData | None:
    """Return the metadata that the argument names; None, with a note, if it does not exist."""
    from sqlalchemy import MetaData

    module_name, _, attribute = context.arguments.metadata.partition(":")
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does; a console script does not
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # the application's module may raise anything
        context.out.note(
            f"error: {quoted(module_name)} cannot be imported: {type(error).__name__}: {printable(str(error), 200)}"
        )
        return None
    for part in (attribute or "SQLModel.metadata").split("."):
        known = dir(found)
        found = getattr(found, part, None)
        if found is None:
            near = suggest(part, known)
            hint = f"; {did_you_mean(near)}" if near else ""
            context.out.note(f"error: {quoted(module_name)} has no {quoted(part)}{hint}")
            return None
    found = getattr(found, "metadata", found)
    if not isinstance(found, MetaData):
        context.out.note(f"error: {quoted(context.arguments.metadata)} is not MetaData, and has no `metadata`")
        return None
    return found


def _tables(metadata: MetaData, names: list[str]) -> list[Table]:
    """Return the tables in the order in which their foreign keys allow them to be created."""
    problems = []
    for name in names:
        if name not in metadata.tables:
            help = did_you_mean(suggest(name, metadata.tables)) or "import the model's module there"
            notes = (f"tables: {', '.join(metadata.tables) or 'none'}",)
            problems.append(Problem("unknown-table", f"table {quoted(name)} does not exist", help=help, notes=notes))
    if problems:
        raise ConfigError(problems)
    return [table for table in metadata.sorted_tables if not names or table.fullname in names]
