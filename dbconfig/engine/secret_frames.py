"""Passwords stay out of tracebacks: error reporters print the local variables of each frame, the drivers' included."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FunctionType, TracebackType
from typing import Any, Final

from sqlalchemy import Engine

from dbconfig.errors.redaction import MASK


class Masked(str):
    """A password as SQLAlchemy passes it on: the same text, but its `repr()` is a mask."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(MASK)

    def __call__(self) -> str:
        """Return the plain text: asyncpg accepts no subclass of `str`, but a function that returns the password."""
        return str(self)


def keep_out(engine: Engine) -> None:
    """Give the driver plain passwords, and let no error of a connect refer to the variables of the driver's frames.

    A driver builds new text from the password, such as libpq's conninfo, which no mask follows.
    """
    dialect: Any = engine.dialect
    connect = dialect.connect

    def connect_in_secret(*arguments: Any, **keywords: Any) -> Any:
        handled = sys.exception()
        try:
            return connect(*arguments, **_plain(keywords))
        except BaseException as error:
            if error.__traceback__ is not None:
                error.__traceback__.tb_next = _without_variables(error.__traceback__.tb_next)
            _strip_causes(error, handled)
            raise
        finally:
            keywords.clear()
            del handled

    dialect.connect = connect_in_secret  # on the dialect object of this engine alone


def _plain(keywords: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Masked) else value for name, value in keywords.items()}


def _strip_causes(error: BaseException, handled: BaseException | None) -> None:
    """Do the same for the errors behind one, except for the one that the caller was handling."""
    seen = {id(error), id(handled), id(None)}
    waiting = _behind(error)
    each = None
    try:
        while waiting:
            each = waiting.pop()
            if each is not None and id(each) not in seen:
                seen.add(id(each))
                each.__traceback__ = _without_variables(each.__traceback__)
                waiting += _behind(each)
    finally:
        del error, handled, each  # as below


def _behind(error: BaseException) -> list[BaseException | None]:
    group = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return [error.__cause__, error.__context__, *group]


def _without_variables(traceback: TracebackType | None) -> TracebackType | None:
    """Return a traceback with the same files, lines and names, whose frames have no variables.

    Clearing the frames instead would end a coroutine that has caught the error and is suspended.
    """
    entries: list[TracebackType] = []
    while traceback is not None:
        entries.append(traceback)
        traceback = traceback.tb_next
    made: TracebackType | None = None
    try:
        while entries:
            made = _counterpart(entries.pop(), made)
        return made
    finally:
        del made  # from Python 3.12 on the counterparts refer to this frame, which must not refer to them


class _Stop(Exception):
    pass


def _raising() -> None:
    raise error  # type: ignore[name-defined]  # noqa: F821  # of the globals that a counterpart is given


def _counterpart(entry: TracebackType, following: TracebackType | None) -> TracebackType:
    """Return the entry of another frame, which has the same names and has ended with an exception."""
    code, known, line = entry.tb_frame.f_code, entry.tb_frame.f_globals, entry.tb_lineno
    names = {"__name__": known.get("__name__"), "__file__": known.get("__file__"), "error": _Stop}
    counterpart = _raising.__code__.replace(
        co_filename=code.co_filename,
        co_name=code.co_name,
        co_qualname=code.co_qualname,
        co_firstlineno=line,
        co_linetable=_LINES,
    )
    raising: Callable[[], None] = FunctionType(counterpart, names)
    raised: TracebackType | None = None
    try:
        raising()
    except _Stop as stop:
        raised = stop.__traceback__ and stop.__traceback__.tb_next
    try:
        assert raised is not None
        return TracebackType(following, raised.tb_frame, raised.tb_lasti, line)
    finally:
        del entry, following, known, raised


def _one_line(code: CodeType) -> bytes:
    """Return a table in which all instructions are on the first line, without columns.

    https://github.com/python/cpython/blob/3.13/InternalDocs/code_objects.md: entries of up to eight instructions, with
    the kind 13 and a distance of 0 lines.
    """
    number = len(code.co_code) // 2
    return b"".join(bytes([0x80 | 13 << 3 | min(8, number - begin) - 1, 0]) for begin in range(0, number, 8))


_LINES: Final = _one_line(_raising.__code__)
