"""Finds profiles and their folder; without `pathlib` and `re`, which would slow completion down."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # not from typing, which takes longer to import than Python to start
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

FOLDER: Final = "config"
SHARED: Final = "default"  # the file that all profiles build on

_ENDINGS: Final = (".yaml", ".yml")
_PROJECT_MARKS: Final = ("pyproject.toml", "setup.py", "setup.cfg", ".git")


def is_name(text: str) -> bool:
    """Return whether a text may be the name of a profile: ASCII letters, digits, `_`, and `-`, but not these two first.

    >>> [is_name(text) for text in ("eu-1", "-x", "_x", "", "a.b", "\u00e9", "a" * 65)]
    [True, False, False, False, False, False, False]
    """
    letters = text if text.isalnum() else text.replace("-", "").replace("_", "")
    return letters.isalnum() and letters.isascii() and text[0].isalnum() and len(text) <= 64


def by_profile(folder: str) -> dict[str, list[str]]:
    """Return the file names of each profile, `default` included; more than one is an ambiguity.

    Raises:
        OSError: the folder cannot be read.
    """
    found: dict[str, list[str]] = {}
    for file in sorted(os.listdir(folder)):
        stem, ending = os.path.splitext(file)
        if ending in _ENDINGS and is_name(stem):
            found.setdefault(stem, []).append(file)
    return found


def names(folder: str) -> list[str]:
    """Return the names of the profiles."""
    return [name for name in by_profile(folder) if name != SHARED]


def find() -> tuple[str | None, list[str]]:
    """Return the folder of the profiles, and the places searched.

    It is `config/` beside or above the running script, else in or above the working directory, up to the top of the
    project.
    """
    tried: list[str] = []
    for start in _starts():
        for place in _upwards(start):
            folder = os.path.join(place, FOLDER)
            if folder not in tried:
                tried.append(folder)
                if any(os.path.splitext(child)[1] in _ENDINGS for child in _children(folder)):
                    return folder, tried
    return None, tried


def _children(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []  # missing or not readable: not the folder that we search for


def _starts() -> Iterator[str]:
    """Yield the starting points of the search: the running script, then the working directory."""
    main = sys.modules.get("__main__")
    script = getattr(main, "__file__", None)
    # `python -m tool` and commands of a virtual environment are tools; the project is in the working directory.
    if script and getattr(main, "__spec__", None) is None:
        place = os.path.dirname(os.path.abspath(script))
        if not any(_is_within(place, prefix) for prefix in {sys.prefix, sys.base_prefix}):
            yield place
    try:
        yield os.getcwd()
    except OSError:
        return  # the working directory was removed


def _is_within(place: str, folder: str) -> bool:
    folder = os.path.normcase(folder).rstrip(os.sep)
    return os.path.normcase(place) == folder or os.path.normcase(place).startswith(folder + os.sep)


def _upwards(start: str) -> Iterator[str]:
    place, above = start, os.path.dirname(start)
    while True:
        yield place
        if place == above or any(os.path.exists(os.path.join(place, mark)) for mark in _PROJECT_MARKS):
            return
        place, above = above, os.path.dirname(above)
