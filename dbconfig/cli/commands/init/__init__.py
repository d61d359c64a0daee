"""`dbconfig init`: a configuration folder with four commented profiles, what belongs around it, and migrations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dbconfig.cli.commands.init import migrations, templates
from dbconfig.cli.commands.schema import text as schema_text
from dbconfig.cli.context import Context
from dbconfig.cli.exit_codes import FAILED, OK
from dbconfig.config.folder import FOLDER, shown_path
from dbconfig.settings.environment_variables import Environment
from dbconfig.settings.url_parsing import InvalidURL, parse_url

_URLS: Final = ("DATABASE_URL", "SQLALCHEMY_DATABASE_URL", "SQLALCHEMY_DATABASE_URI", "DB_URL", "POSTGRES_URL")
_IGNORED: Final = (".env", "/data/")


def run(context: Context) -> int:
    project = Path(context.arguments.folder).absolute()
    if not project.is_dir():
        context.out.note(f"error: there is no folder {shown_path(project)}")
        return FAILED
    try:
        of_alembic = _migrations(context)
    except ValueError as error:
        context.out.note(f"error: {error}")
        return FAILED
    plan = _detect(project)
    files = {f"{FOLDER}/{name}": text for name, text in templates.profiles(plan.connection, plan.production).items()}
    files[f"{FOLDER}/schema.json"] = schema_text()
    configured = _existing(project, files)
    existing = _existing(project, of_alembic) if of_alembic else configured
    if existing:
        context.out.note(f"error: nothing is overwritten, and there is already {', '.join(existing)}")
        context.out.note("move it away first, or name another folder: dbconfig init FOLDER")
        return FAILED
    if configured:
        context.out.line(f"{FOLDER}/ is there already, and stays as it is")
    else:
        _configure(context, project, files, plan)
    for name, text in of_alembic.items():
        _write(context, project / name, text)
    context.out.line()
    if not configured:
        for note in plan.notes:
            context.out.line(note)
        context.out.line("next: dbconfig check")
    for note in migrations.notes() if of_alembic else ():
        context.out.line(note)
    context.out.line("then, in Python: from dbconfig import db; with db.session() as session: ...")
    return OK


def _migrations(context: Context) -> dict[str, str]:
    """Return the files of Alembic, if they are asked for."""
    folder, models = context.arguments.alembic, context.arguments.models
    if folder is None and models is not None:
        raise ValueError("--models is for migrations: add --alembic")
    return {} if folder is None else migrations.files(folder, models or migrations.MODELS)


def _existing(project: Path, names: Iterable[str]) -> list[str]:
    return [name for name in names if (project / name).exists() or (project / name).is_symlink()]


def _configure(context: Context, project: Path, files: Mapping[str, str], plan: _Plan) -> None:
    for name, text in files.items():
        _write(context, project / name, text)
    if not (project / ".env.example").exists():
        _write(context, project / ".env.example", templates.ENV_EXAMPLE.format(name=plan.production))
    _ignore(context, project / ".gitignore")


@dataclass(frozen=True)
class _Plan:
    """What development connects to, and the variable that production takes."""

    connection: str = templates.DEVELOPMENT_CONNECTION
    production: str = "DATABASE_URL"
    notes: tuple[str, ...] = ()


def _detect(project: Path) -> _Plan:
    """Return how to connect by what a `.env` already says; its values are looked at and never shown."""
    environment = Environment({}, project / ".env", ".env")
    # What lies in a developer's .env is development's; production must not mean the same.
    production = "PRODUCTION_DATABASE_URL"
    for name in _URLS:
        variable = environment.get(name)
        if variable is None or not variable.value:
            continue
        try:
            backend = parse_url(variable.value).drivername
        except InvalidURL as error:
            return _Plan(production=production, notes=(f"note: {name} in .env is not used: {error}",))
        note = f"development connects by {name} of .env ({backend}); production by {production}"
        return _Plan(templates.FROM_URL.format(name=name), production, (note,))
    if environment.get("POSTGRES_PASSWORD") or environment.get("POSTGRES_USER"):
        return _Plan(templates.FROM_PARTS, notes=("development connects by POSTGRES_… of .env",))
    return _Plan()


def _write(context: Context, path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8", newline="\n") as file:  # "x": what appeared meanwhile is not overwritten
        file.write(text)
    context.out.line(f"wrote {shown_path(path)}")


def _ignore(context: Context, path: Path) -> None:
    present = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = present.splitlines()
    missing = [line for line in _IGNORED if not {line, line.strip("/"), line.lstrip("/"), f"/{line}"} & set(lines)]
    if missing:
        end = "" if not present or present.endswith("\n") else "\n"
        with path.open("a", encoding="utf-8") as file:
            file.write(end + "\n".join(missing) + "\n")
        context.out.line(f"added to {shown_path(path)}: {' '.join(missing)}")
