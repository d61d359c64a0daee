"""Secrets and where they are read from: written text, an environment variable, a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from dbconfig.errors import ConfigError
from dbconfig.errors.light_dataclass import dataclass
from dbconfig.errors.printable import quoted
from dbconfig.errors.problem import Location, Problem
from dbconfig.settings import small_files
from dbconfig.settings.environment_variables import Environment, Variable, unexpanded

FILE_LIMIT: Final = 64 * 1024  # bytes; a token of a cloud provider has about 2 kB

# Docker and Kubernetes mount secrets here, readable for all users of the container, which has only one.
_MOUNTED: Final = ("/run/secrets/", "/var/run/secrets/")


class Secret:
    """A value that is never shown: not by `repr`, `str` or `format`, not in a dump, not in a pickle.

    What was written as `{file: …}` or `{env: …}` is read again by each `read()`; `{provider: …}` is called by the
    settings that it belongs to. A pickle contains the location of such a secret, and no literal secret.
    """

    __slots__ = ("_argument", "_environment", "_literal", "kind", "location", "written")

    # The argument is Any because of driver arguments such as PyMySQL's `ssl`, a mapping that contains a password.
    def __init__(self, kind: str, argument: Any, location: Location | None = None, *, written: bool = False) -> None:
        self.kind: str = kind  # "text", "file", "env" or "provider"
        self.location: Location | None = location
        self.written: bool = written  # written in a file, not taken from a variable
        self._argument = argument if kind in ("file", "env", "provider") else ""
        self._environment: Environment | None = None
        # A closure, so that no attribute holds the text: `vars`, debuggers, and crash reporters print attributes.
        self._literal: Callable[[], Any] = (lambda: argument) if kind == "text" else _withheld

    def __repr__(self) -> str:
        return f"Secret({self.kind}={self._argument!r})" if self._argument else "Secret('***')"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        same = (self.kind, self._argument) == (other.kind, other._argument)
        return same and (self.kind != "text" or self._literal() == other._literal())

    def __hash__(self) -> int:
        return hash((self.kind, self._argument))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Secret, ("withheld" if self.kind == "text" else self.kind, self._argument, self.location)

    @property
    def argument(self) -> str:
        """The value of the mapping: the path, the variable, or the provider; "" for a literal secret."""
        return str(self._argument)

    def bind(self, environment: Environment) -> None:
        """Make `{env: NAME}` use this environment; unbound, and after unpickling, it uses the process's own."""
        self._environment = environment

    def masked(self) -> str | dict[str, str]:
        """Return the displayable form: the mask, or the location of the secret."""
        return {self.kind: self._argument} if self._argument else "***"

    def read(self, folder: Path | None = None) -> str:
        """Return the current secret.

        Args:
            folder: what a relative path of a file is relative to.

        Raises:
            ConfigError: it does not exist, is empty, or is not text.
        """
        if self.kind in ("file", "env"):
            found = _file(self._path(folder)) if self.kind == "file" else self._variable()
            if isinstance(found, Unusable):
                self._fail(found.reason)
            return found
        if self.kind == "provider":
            self._fail("a provider gives it to a database's settings only: read it by read_password()")
        if self.kind == "withheld":
            self._fail("a pickle does not contain the secret: load the profile in this process")
        text: str = self._literal()
        return text

    def file(self, folder: Path | None = None) -> Path | None:
        """Return the file that it is read from; None for another source."""
        path = self._path(folder) if self.kind == "file" else None
        return None if path is None or str(path).startswith(_MOUNTED) else path

    def _variable(self) -> str | Unusable:
        variable = (self._environment or Environment()).get(self._argument)
        named = f"environment variable {self._argument}"
        if variable is None or not variable.value:
            return Unusable(f"{named} is {'not set' if variable is None else 'empty'}")
        missing = unexpanded_secret(variable)
        if missing:
            return Unusable(f"{named} contains ${{{missing}}}, which is not set")
        value = bare(variable.value)
        return Unusable(f"{named}: {unusable(value)}") if unusable(value) else value

    def _path(self, folder: Path | None) -> Path:
        return (folder / self._argument) if folder is not None else Path(self._argument)

    def _fail(self, reason: str) -> NoReturn:
        is_file = self.kind == "file"
        what = f"the secret file {quoted(self._argument)}" if is_file else "the password"
        help = (
            "it holds the password and nothing else, as for POSTGRES_PASSWORD_FILE and MYSQL_PASSWORD_FILE in compose"
            if is_file
            else ""
        )
        raise ConfigError(
            [Problem("secret-unreadable", f"{what}: {reason}", self.location, "password", help)]
        ) from None


def _withheld() -> str:
    raise AssertionError("only a literal secret has a text")


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why a secret cannot be used; returned, not raised, so that no traceback frame holds what was read."""

    reason: str


def _file(path: Path) -> str | Unusable:
    try:
        data = small_files.read(path, FILE_LIMIT)
    except small_files.Unreadable as error:
        return Unusable(str(error))
    wrong = small_files.undecodable(data)
    if wrong:
        return Unusable(wrong)
    text = bare(data.decode("utf-8"))
    return Unusable("it is empty" if not text else unusable(text)) if not text or unusable(text) else text


def unexpanded_secret(variable: Variable) -> str:
    """Return the name of an unexpanded reference that is the whole secret, or ""."""
    # A password may contain anything, but one that consists of a reference was meant to be expanded.
    value = "" if variable.literal else variable.value
    whole = unexpanded(value) if value.startswith("${") and value.endswith("}") else ""
    return next(iter(variable.missing), "") or whole


def bare(text: str) -> str:
    """Return a secret without what editors and `echo` add: a byte order mark and one line end, but not spaces."""
    return text.removeprefix("\ufeff").removesuffix("\n").removesuffix("\r")


def unusable(text: str) -> str:
    """Return why a server would not accept a text as a secret, or ""."""
    if any("\ud800" <= ch <= "\udfff" for ch in text):
        return "it is not UTF-8 text"
    if "\n" in text or "\r" in text or "\0" in text:
        return "it has more than one line, or a NUL character"
    return ""
