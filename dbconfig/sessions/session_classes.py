"""The session classes: SQLModel's, or the application's own, combined with the behavior of each kind of session."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy.orm import Session as PlainSession
from sqlmodel import Session

from dbconfig.errors.light_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class SessionClasses:
    """The classes passed as `Registry(session_class=…, async_session_class=…)`.

    Attributes:
        plain: the class of synchronous sessions.
        asynchronous: the class of asynchronous sessions; None means the counterpart of `plain`.
    """

    plain: type[PlainSession] = Session
    asynchronous: type[Any] | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.plain, type) and issubclass(self.plain, PlainSession)):
            raise TypeError(f"session_class must be a subclass of sqlalchemy.orm.Session, not {self.plain!r}")
        if self.asynchronous is not None and not hasattr(self.asynchronous, "sync_session_class"):
            raise TypeError(
                "async_session_class must be a subclass of sqlalchemy.ext.asyncio.AsyncSession, "
                f"not {self.asynchronous!r}"
            )

    def of(self, kind: type[PlainSession]) -> Any:
        """Return a class with the behavior of a kind of session, derived from the application's class."""
        return combined(kind, self.plain)

    def async_class(self) -> Any:
        """Return the class of asynchronous sessions."""
        if self.asynchronous is not None:
            return self.asynchronous
        if issubclass(self.plain, Session):
            from sqlmodel.ext.asyncio.session import AsyncSession

            return AsyncSession
        from sqlalchemy.ext.asyncio import AsyncSession as PlainAsyncSession

        return PlainAsyncSession


_combined: Final[dict[tuple[type[Any], type[Any]], type[Any]]] = {}


def combined(kind: type[PlainSession], plain: type[PlainSession]) -> type[Any]:
    """Return a class with the behavior of a kind of session on top of another class; cached."""
    if issubclass(plain, kind):
        return plain
    known = _combined.get((kind, plain))
    if known is not None:
        return known
    members = {"__doc__": kind.__doc__, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return _combined.setdefault((kind, plain), type(kind.__name__, (kind, plain), members))


def commit_as_the_class_does(session: PlainSession) -> None:
    """Commit with the application's class, or SQLAlchemy's, since the class of a unit of work rejects commits."""
    for each in type(session).__mro__:
        own = vars(each).get("commit")
        if own is not None and not each.__module__.startswith("dbconfig."):
            own(session)
            return


SQLMODEL: Final = SessionClasses()
