"""Where in the application something happens: the frames of the libraries in between are skipped."""

from __future__ import annotations

import os
import sys
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

# Recognized by the module's name, not by its file: SQLAlchemy has frames whose file is "<string>".
_LIBRARIES = {
    *("sqlalchemy", "sqlmodel", "dbconfig", "greenlet", "pydantic"),
    *("starlette", "fastapi", "anyio", "uvicorn", "gunicorn", "flask", "flask_sqlalchemy", "werkzeug"),
    *("click", "typer", "celery", "pytest", "_pytest", "pluggy", "pytest_asyncio"),
}
_known: dict[str, bool] = {}  # by module name; filled without a lock, as any two threads write the same

Place = tuple[CodeType, int]  # and the index of the instruction: finding its line takes longer, and is rarely needed
DEPTH = 3  # frames of the application; each costs a checkout with leak warnings 4 %, and more say little


def skip(package: str) -> None:
    """Exclude the frames of a package, such as a driver, from the application's."""
    if package and package not in _LIBRARIES:
        _LIBRARIES.add(package)
        _known.clear()


def _is_library(module: str) -> bool:
    known = _known.get(module)
    if known is None:
        top = module.partition(".")[0]
        known = _known[module] = top in _LIBRARIES or top in sys.stdlib_module_names
    return known


def application_frames(frame: FrameType | None, depth: int = DEPTH) -> list[Place]:
    """Return the innermost frames of the application; code and place only, since a frame keeps its variables alive."""
    found: list[Place] = []
    known = _known
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        library = known.get(module)
        if not (_is_library(module) if library is None else library):
            found.append((frame.f_code, frame.f_lasti))
            if len(found) == depth:
                break
        frame = frame.f_back
    return found


def running(depth: int = DEPTH) -> list[Place]:
    """Return the frames of the application that called, also those that wait for a greenlet of asyncio's drivers."""
    found = application_frames(sys._getframe(1), depth)
    greenlet = sys.modules.get("greenlet")
    parent = greenlet.getcurrent().parent if greenlet is not None else None
    while parent is not None and len(found) < depth:
        found += application_frames(parent.gr_frame, depth - len(found))
        parent = parent.parent
    return found


def frames_of_task(task: asyncio.Task[Any], depth: int = 1) -> list[Place]:
    """Return where a task waits now, the innermost place first."""
    found: list[Place] = []
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame: FrameType | None = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is not None and not _is_library(frame.f_globals.get("__name__", "")):
            found.append((frame.f_code, frame.f_lasti))
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
    return found[: -depth - 1 : -1]


def thread_is_inside(thread: int, package: str = "sqlalchemy") -> bool:
    """Return whether a thread executes something of a package now, or something that it has called."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] == package:
            return True
        frame = frame.f_back
    return False


def task_is_inside(task: asyncio.Task[Any], package: str = "sqlalchemy") -> bool:
    """Return whether a task waits for something of a package now."""
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame: FrameType | None = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
            return True
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
    return False


def describe(place: Place) -> str:
    """Write a place as ``app/jobs.py:41 in rebuild_index``."""
    code, instruction = place
    line = next(
        (line for start, end, line in code.co_lines() if start <= instruction < end and line), code.co_firstlineno
    )
    path = os.path.relpath(code.co_filename) if os.path.isabs(code.co_filename) else code.co_filename
    return f"{code.co_filename if path.startswith('..') else path}:{line} in {code.co_name}"
