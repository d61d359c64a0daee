"""The text of `--help`, in the layout of argparse, whose import would take longer than everything else."""

from __future__ import annotations

import os
import sys

from dbconfig.cli.command_table import COMMANDS, Argument, common, own

TYPE_CHECKING = False  # not from typing, which takes longer to import than Python to start
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

_COLUMN: Final = 24  # where the texts begin


def usage(name: str | None) -> str:
    """Return the usage lines of a command; None is the program itself."""
    command = None if name is None else COMMANDS[name]
    begin = "usage: dbconfig" if name is None else f"usage: dbconfig {name}"
    options = own(command)
    parts = [f"[{_called(option.names[0], option)}]" for option in (*options, *common(command))]
    words = ["COMMAND ..."] if command is None else [word.value for word in command.words]
    width, indent = _width(), " " * (len(begin) + 1)
    if len(" ".join([begin, *parts, *words])) <= width:
        return " ".join([begin, *parts, *words])
    lines = _wrapped(parts, width - len(indent)) + _wrapped(words, width - len(indent))
    return f"{begin} " + f"\n{indent}".join(lines)


def help_text(name: str | None) -> str:
    """Return the whole text."""
    command = None if name is None else COMMANDS[name]
    description = "Database connections for SQLModel, configured in YAML." if command is None else command.description
    parts = [usage(name), _paragraph(description)]
    if command is not None and command.words:
        parts.append(_section("positional arguments", [(word.metavar, word.help) for word in command.words]))
    options = own(command)
    parts.append(_section("options", _rows(options)))
    parts.append(_section("common options", _rows(common(command))))
    if command is None:
        rows = [("COMMAND", ""), *((f"  {each}", COMMANDS[each].summary) for each in COMMANDS)]
        parts.append(_section("commands", rows))
        parts.append(
            _paragraph("exit codes: 0 success, 1 a check found a problem, 2 the command could not run, 130 interrupted")
        )
    return "\n\n".join(parts) + "\n"


def _called(name: str, argument: Argument) -> str:
    return f"{name} {argument.value}".rstrip()


def _rows(options: Iterable[Argument]) -> list[tuple[str, str]]:
    return [(", ".join(_called(name, option) for name in option.names), option.help) for option in options]


def _section(title: str, rows: Iterable[tuple[str, str]]) -> str:
    lines = [f"{title}:"]
    for name, text in rows:
        head = f"  {name}"
        texts = _wrapped(text.split(), max(_width() - _COLUMN, 11))
        if texts and len(head) <= _COLUMN - 2:
            head = head.ljust(_COLUMN) + texts.pop(0)
        lines += [head, *(" " * _COLUMN + each for each in texts)]
    return "\n".join(lines)


def _paragraph(text: str) -> str:
    return "\n".join(_wrapped(text.split(), _width()))


def _wrapped(words: Iterable[str], width: int) -> list[str]:
    """Return the words wrapped to the width, unless one word is longer."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _width() -> int:
    """Return the width of the terminal, less two, as argparse has it."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns) > 0:
        return max(int(columns) - 2, 11)
    try:
        return max((os.get_terminal_size(sys.__stdout__.fileno()).columns if sys.__stdout__ else 0) or 80, 13) - 2
    except (AttributeError, ValueError, OSError):  # closed, detached, or not a terminal
        return 78
