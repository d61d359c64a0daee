"""What `dbconfig init --alembic` writes: `alembic.ini`, and a folder of migrations whose `env.py` is one call."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Final

FOLDER: Final = "migrations"
MODELS: Final = "app.models"

_TEMPLATE: Final = Path(__file__).with_name("alembic_template")
# A `%` has a meaning in alembic.ini, and a space in older versions of Alembic.
_FOLDER: Final = re.compile(r"\w[\w-]*(?:/\w[\w-]*)*")
_MODULE: Final = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")


def files(folder: str, models: str) -> dict[str, str]:
    """Return the text of each file, by its place in the project.

    Raises:
        ValueError: the folder or the module has an invalid name; the text says which are valid.
    """
    folder = folder.rstrip("/")
    if not _FOLDER.fullmatch(folder):
        raise ValueError(f"{folder!r} is not a folder within the project: use letters, digits, `_`, `-`, and `/`")
    if not _MODULE.fullmatch(models):
        raise ValueError(f"{models!r} is not a Python module, such as {MODELS}")
    text = {path.name: path.read_text(encoding="utf-8") for path in _TEMPLATE.iterdir() if path.is_file()}
    found = {"alembic.ini": text.pop("alembic.ini").replace(f"/{FOLDER}\n", f"/{folder}\n")}
    text["env.py"] = text["env.py"].replace(MODELS, models)
    return found | {f"{folder}/{name}": text[name] for name in sorted(text)}


def notes(project: Path, models: str) -> list[str]:
    """Return what to do next."""
    found = [] if find_spec("alembic") else ["alembic is not installed: pip install 'sqlmodel-dbconfig[alembic]'"]
    if not _is_there(project, models):
        found.append(f"env.py imports {models}, which does not exist yet: create it, or name your module with --models")
    return [*found, 'next: alembic revision --autogenerate -m "first"; alembic upgrade head']


def _is_there(project: Path, models: str) -> bool:
    path = project.joinpath(*models.split("."))
    # A package installed from elsewhere, such as from src/, is not checked.
    return path.with_suffix(".py").is_file() or path.is_dir() or find_spec(models.partition(".")[0]) is not None
