"""`dbconfig init`: a configuration folder with four commented profiles, and what belongs around it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dbconfig.cli import FAILED, OK, templates
from dbconfig.cli.commands.schema import text as schema_text
from dbconfig.cli.context import Context
from dbconfig.environment import Environment
from dbconfig.profiles import FOLDER, shown_path
from dbconfig.urls import InvalidURL, parse_url

_URLS: Final = ("DATABASE_URL", "SQLALCHEMY_DATABASE_URL", "SQLALCHEMY_DATABASE_URI", "DB_URL", "POSTGRES_URL")
_IGNORED: Final = (".env", "/data/")


def run(context: Context) -> int:
    project = Path(context.arguments.folder).absolute()
    if not project.is_dir():
        context.out.note(f"error: there is no folder {shown_path(project)}")
        return FAILED
    plan = _detect(project)
    files = {f"{FOLDER}/{name}": text for name, text in templates.profiles(plan.connection, plan.production).items()}
    files[f"{FOLDER}/schema.json"] = schema_text()
    existing = [name for name in files if (project / name).exists() or (project / name).is_symlink()]
    if existing:
        context.out.note(f"error: nothing is overwritten, and there is already {', '.join(existing)}")
        context.out.note("move it away first, or name another folder: dbconfig init FOLDER")
        return FAILED
    (project / FOLDER).mkdir(exist_ok=True)
    for name, text in files.items():
        _write(context, project / name, text)
    if not (project / ".env.example").exists():
        _write(context, project / ".env.example", templates.ENV_EXAMPLE.format(name=plan.production))
    _ignore(context, project / ".gitignore")
    context.out.line()
    for note in plan.notes:
        context.out.line(note)
    context.out.line("next: dbconfig check")
    context.out.line("then, in Python: from dbconfig import db; with db.session() as session: ...")
    return OK


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
