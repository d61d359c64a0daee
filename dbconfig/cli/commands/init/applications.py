"""What `dbconfig init --fastapi` and `--flask` write: a small application with its tests, ready to run."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

FRAMEWORKS: Final = ("fastapi", "flask")

_HERE: Final = Path(__file__).parent
# By file in the template: its path in the project.
_PLACES: Final = {
    "application.py": "app/__init__.py",
    "main.py": "app/main.py",
    "models.py": "app/models.py",
    "conftest.py": "tests/conftest.py",
    "test_heroes.py": "tests/test_heroes.py",
}
_PYTEST: Final = """[pytest]
pythonpath = .
# The tests use this profile, whatever ENVIRONMENT is.
db_profile = testing
"""
_PURPOSES: Final = {
    "app/__init__.py": "the application",
    "app/main.py": "the application",
    "app/models.py": "its tables",
    "tests/conftest.py": "a client whose requests are rolled back",
    "tests/test_heroes.py": "tests of the application",
    "pytest.ini": "the profile of the tests",
}


def files(framework: str, *, migrated: bool) -> dict[str, str]:
    """Return the text of each file, by its place in the project.

    Args:
        framework: `fastapi` or `flask`.
        migrated: migrations create the tables, not the application.
    """
    folder = _HERE / f"{framework}_template"
    texts = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.py")}
    found = {place: texts[name] for name, place in _PLACES.items() if name in texts}
    if migrated and framework == "fastapi":
        found["app/main.py"] = _without_tables(found["app/main.py"])
    found.setdefault("app/__init__.py", '"""The application."""\n')
    return {**dict(sorted(found.items())), "pytest.ini": _PYTEST}


def _without_tables(text: str) -> str:
    """Return the FastAPI application without its own lifespan, which creates the tables."""
    head, _, rest = text.partition("\n\n@asynccontextmanager\n")
    _, _, rest = rest.partition("    yield\n\n")
    head = "\n".join(line for line in head.split("\n") if not line.startswith(("import asyncio", "from co")))
    return (head + rest).replace("lifespan(around=prepare)", "lifespan")


def purposes(framework: str) -> dict[str, str]:
    """Return what each file is for, by its place in the project."""
    found = dict(_PURPOSES)
    if framework == "fastapi":
        found["app/__init__.py"] = "makes `app` a package"
    return found


def notes(framework: str, *, migrated: bool) -> list[str]:
    """Return what to do next."""
    needed = {"fastapi": ("fastapi", "uvicorn", "httpx2"), "flask": ("flask",)}[framework]
    missing = [name for name in (*needed, "pytest") if not _is_installed(name)]
    found = [f"not installed: {', '.join(missing)}; pip install {' '.join(missing)}"] if missing else []
    if framework == "fastapi":
        return [*found, "next: pytest; uvicorn app.main:app --reload"]
    create = "" if migrated else "flask --app app dbconfig create-tables; "
    return [*found, f"next: pytest; {create}flask --app app run"]


def _is_installed(package: str) -> bool:
    # Starlette's TestClient accepts either of the two.
    names = ("httpx2", "httpx") if package == "httpx2" else (package,)
    return any(find_spec(name) is not None for name in names)
