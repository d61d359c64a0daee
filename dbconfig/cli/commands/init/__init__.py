"""`dbconfig init`: write a configuration folder, and on request migrations and a small application."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from dbconfig.cli.commands.init import applications, dotenv, migrations, templates
from dbconfig.cli.commands.schema import text as schema_text
from dbconfig.cli.context import Context
from dbconfig.cli.exit_codes import FAILED, OK
from dbconfig.config.folder import shown_path
from dbconfig.config.profile_files import FOLDER
from dbconfig.errors import ConfigError
from dbconfig.settings import small_files

_IGNORED: Final = (".env", "/data/")
_WIDTH: Final = len("wrote config/development.yaml")


def run(context: Context) -> int:
    project = Path(context.arguments.folder).absolute()
    if not project.is_dir():
        context.out.note(f"error: the folder {shown_path(project)} does not exist")
        return FAILED
    framework = next((each for each in applications.FRAMEWORKS if getattr(context.arguments, each)), None)
    try:
        of_alembic = _migrations(context)
        plan = dotenv.plan(project, context.environ, from_process=context.arguments.from_env)
    except ConfigError:  # it is a ValueError, and has lines of its own
        raise
    except ValueError as error:
        context.out.note(f"error: {error}")
        return FAILED
    of_application = applications.files(framework, migrated=bool(of_alembic)) if framework else {}
    files = {f"{FOLDER}/{name}": text for name, text in templates.profiles(plan.connection, plan.production).items()}
    files |= plan.more or {}
    files[f"{FOLDER}/schema.json"] = schema_text()
    configured = _existing(project, files)
    added = of_application | of_alembic
    existing = _existing(project, added) if added else configured
    if existing:
        context.out.note(f"error: init never overwrites a file, and these exist: {', '.join(existing)}")
        context.out.note("help: move them away first, or name another folder: dbconfig init FOLDER")
        return FAILED
    purposes = {name: text.format(name=plan.production) for name, text in templates.PURPOSES.items()}
    if framework:
        purposes |= applications.purposes(framework)
    if configured:
        context.out.line(f"{FOLDER}/ already exists, and is left unchanged")
    else:
        _configure(context, project, files, plan, purposes)
    for name, text in added.items():
        _write(context, project, name, text, purposes)
    context.out.line()
    if not configured:
        for note in plan.notes:
            context.out.line(note)
    for note in _next_steps(context, framework, configured=bool(configured)):
        context.out.line(note)
    return OK


def _next_steps(context: Context, framework: str | None, *, configured: bool) -> list[str]:
    found = [] if configured else ["next: dbconfig check"]
    migrated = context.arguments.alembic is not None
    if migrated:
        project = Path(context.arguments.folder).absolute()
        found += migrations.notes(project, context.arguments.models or migrations.MODELS)
    if framework:
        return found + applications.notes(framework, migrated=migrated)
    return [*found, "then, in Python: from dbconfig import db; with db.session() as session: ..."]


def _migrations(context: Context) -> dict[str, str]:
    """Return Alembic's files, if they are requested."""
    folder, models = context.arguments.alembic, context.arguments.models
    if folder is None and models is not None:
        raise ValueError("--models applies to migrations: add --alembic")
    return {} if folder is None else migrations.files(folder, models or migrations.MODELS)


def _existing(project: Path, names: Iterable[str]) -> list[str]:
    return [name for name in names if (project / name).exists() or (project / name).is_symlink()]


def _configure(
    context: Context, project: Path, files: Mapping[str, str], plan: dotenv.Plan, purposes: Mapping[str, str]
) -> None:
    for name, text in files.items():
        _write(context, project, name, text, purposes)
    if not (project / ".env.example").exists():
        _write(context, project, ".env.example", templates.ENV_EXAMPLE.format(name=plan.production), purposes)
    _ignore(context, project / ".gitignore")


def _write(context: Context, project: Path, name: str, text: str, purposes: Mapping[str, str]) -> None:
    path = project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8", newline="\n") as file:  # "x": never overwrite a file
        file.write(text)
    purpose = purposes.get(name, "")
    shown = f"wrote {shown_path(path)}"
    context.out.line(f"{shown:<{_WIDTH}}  {purpose}" if purpose else shown)


def _ignore(context: Context, path: Path) -> None:
    try:
        present = small_files.read(path).decode("utf-8", "replace") if path.exists() else ""
    except small_files.Unreadable as error:
        context.out.note(f"note: {shown_path(path)}: {error}; it should contain the lines {' '.join(_IGNORED)}")
        return
    lines = present.splitlines()
    missing = [line for line in _IGNORED if not {line, line.strip("/"), line.lstrip("/"), f"/{line}"} & set(lines)]
    if missing:
        end = "" if not present or present.endswith("\n") else "\n"
        with path.open("a", encoding="utf-8") as file:
            file.write(end + "\n".join(missing) + "\n")
        context.out.line(f"added to {shown_path(path)}: {' '.join(missing)}")
