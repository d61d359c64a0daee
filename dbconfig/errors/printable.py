"""Text that is safe to print on a terminal: escapes, width, colors, quotes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from unicodedata import category, east_asian_width  # not on demand: a process that has given up its rights cannot

SHOWN_AT_MOST: Final = 80  # characters of external text in a message: enough to recognize it, too few to flood a log


_CODES: Final = {"error": "1;31", "warning": "1;33", "bold": "1", "frame": "34", "help": "36", "good": "32", "dim": "2"}


class Palette:
    """Whether text is colored; no information is conveyed by color only."""

    def __init__(self, on: bool = False) -> None:
        self.on = on

    def __call__(self, kind: str, text: str) -> str:
        return f"\x1b[{_CODES[kind]}m{text}\x1b[0m" if self.on and text else text


PLAIN: Final = Palette()


def printable(text: str, limit: int = SHOWN_AT_MOST) -> str:
    """Return external text made safe for a terminal or a log: without control characters, and truncated."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode("ascii") for ch in cut)


def harmless(text: str) -> str:
    """Return a line of any length with terminal control characters and commands of CI systems escaped.

    >>> harmless("a\\x1b[31mb"), harmless("##[error]c")
    ('a\\\\x1b[31mb', '#\\\\x23[error]c')
    """
    if not text.isprintable():
        text = printable(text, len(text))
    # GitHub and Azure execute these in the middle of a line, too.
    return text.replace("##[", "#\\x23[").replace("##vso[", "#\\x23vso[") if "##" in text else text


def display_width(text: str) -> int:
    """Return how many terminal cells a text occupies: East Asian wide characters take two, combining marks none."""
    return sum(2 if east_asian_width(ch) in "WF" else 0 if category(ch) in ("Mn", "Me", "Cf") else 1 for ch in text)


def quoted(text: str) -> str:
    return f"'{printable(text)}'"


def suggest(written: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the one of the known names that was probably meant, or ""; `cutoff` is difflib's ratio.

    >>> suggest("pool_sise", ["pool_size", "port"]), suggest("xyz", ["port"])
    ('pool_size', '')
    """
    from difflib import get_close_matches  # imported only if something is wrong

    return next(iter(get_close_matches(written, list(known), 1, cutoff)), "")


def did_you_mean(near: str) -> str:
    """Return the question that suggests a name, or ""."""
    return f"did you mean {near!r}?" if near else ""
