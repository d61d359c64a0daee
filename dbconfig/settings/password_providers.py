"""Password providers: functions by name, called for each new connection within a time limit."""

from __future__ import annotations

import contextvars
import inspect
import threading
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, NoReturn

from dbconfig.errors import ConfigError
from dbconfig.errors.printable import did_you_mean, quoted, suggest
from dbconfig.errors.problem import Problem
from dbconfig.settings.secret_sources import Secret, Unusable, bare, unusable

# A provider gets the DatabaseSettings whose password it returns, such as address.host and .username. They are in a
# higher layer, and passed through.
Function = Callable[[Any], str]

GROUP: Final = "dbconfig.password_providers"  # the entry points of installed packages
TIMEOUT: Final = 10.0  # seconds; a token service that needs longer is considered down
# Maximum number of hanging calls of one provider. A thread cannot be stopped from outside: without a limit, each new
# connection would add another one while the token service does not answer.
HANGING_AT_MOST: Final = 4


class Provider:
    """One function, and its time limit."""

    def __init__(self, name: str, function: Function, timeout: float = TIMEOUT) -> None:
        if not callable(function):
            raise TypeError(f"password provider {quoted(name)}: a function is needed, not {type(function).__name__}")
        if not timeout > 0:
            raise ValueError(f"password provider {quoted(name)}: timeout must be greater than 0, not {timeout:g}")
        self.name = name
        self._function = function
        self._timeout = timeout
        self._places = threading.BoundedSemaphore(HANGING_AT_MOST)

    def ask(self, settings: Any, secret: Secret) -> str:
        """Return the current password.

        Raises:
            ConfigError: the provider failed, hung, or returned no password; its own error is the cause.
        """
        # A thread that hung at a fork does not exist in the child; it would occupy its slot there permanently.
        places = self._places
        if not places.acquire(blocking=False):
            _fail(secret, f"{HANGING_AT_MOST} earlier calls have not returned")
        call = _Call(self._function, settings, places.release)
        if not call.done(self._timeout):
            _fail(secret, f"no answer within {self._timeout:g} s")
        if call.error is not None:
            # The provider's text is in the cause; it is not repeated, because it may contain a secret.
            _fail(secret, f"failed with {type(call.error).__name__}", call.error)
        found = _checked(call.taken())
        if isinstance(found, Unusable):
            _fail(secret, found.reason)
        return found

    def forget_hanging(self) -> None:
        self._places = threading.BoundedSemaphore(HANGING_AT_MOST)


class _Call:
    """A call on a separate thread, so that a function that never returns delays its caller only until the limit."""

    def __init__(self, function: Function, settings: Any, release: Callable[[], None]) -> None:
        self.result: object = None
        self.error: BaseException | None = None
        self._ended = threading.Event()
        context = contextvars.copy_context()

        def run() -> None:
            try:
                self.result = context.run(function, settings)
            except BaseException as error:  # raised again, as a cause, in the thread that asked
                self.error = error
            finally:
                release()
                self._ended.set()

        try:
            threading.Thread(target=run, name="dbconfig-password", daemon=True).start()
        except RuntimeError:
            run()  # the interpreter is shutting down, and starts no threads

    def taken(self) -> object:
        """Return and drop the result, because the call is a local variable of its caller."""
        result, self.result = self.result, None
        return result

    def done(self, timeout: float) -> bool:
        return self._ended.wait(timeout)


class Providers:
    """The providers of one registry: its own, and those of installed packages."""

    def __init__(self) -> None:
        self._own: dict[str, Provider] = {}
        self._installed: dict[str, Provider] = {}

    def add(self, name: str, function: Function, timeout: float) -> None:
        """Register a function under a name; a later one with the same name replaces it."""
        self._own[name] = Provider(name, function, timeout)

    def ask(self, secret: Secret, settings: Any) -> str:
        return self.find(secret).ask(settings, secret)

    def find(self, secret: Secret) -> Provider:
        """Return the provider that a secret names, without calling it.

        Raises:
            ConfigError: no provider has this name, or its package cannot be imported.
        """
        name = secret.argument
        found = self._own.get(name) or self._installed.get(name)
        if found is None:
            found = self._installed[name] = Provider(name, _load(name, secret, self._own))
        return found

    def forget_hanging(self) -> None:
        """In a forked child: reset, because hanging threads belong to the parent."""
        for provider in (*self._own.values(), *self._installed.values()):
            provider.forget_hanging()


def _load(name: str, secret: Secret, own: dict[str, Provider]) -> Function:
    points: dict[str, EntryPoint] = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        known = sorted({*own, *points})
        register = f"register it before the first use, db.password_provider({name!r}, function), or install its package"
        help = did_you_mean(suggest(name, known)) or register
        notes = (f"known: {', '.join(known)}",) if known else ("no providers are registered",)
        message = f"unknown password provider {quoted(name)}"
        raise ConfigError([Problem("unknown-provider", message, secret.location, "password", help, notes)])
    try:
        function: Function = points[name].load()
    except Exception as error:
        _fail(secret, f"{points[name].value} cannot be imported", error)
    return function


def _checked(result: object) -> str | Unusable:
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        return Unusable("it is a coroutine function; a provider is an ordinary one, called on a thread of its own")
    if not isinstance(result, str):
        return Unusable(f"it returned {type(result).__name__}, not text")
    text = bare(result)
    reason = "it returned an empty text" if not text else unusable(text)
    return Unusable(reason) if reason else text


def _fail(secret: Secret, reason: str, cause: BaseException | None = None) -> NoReturn:
    message = f"password provider {quoted(secret.argument)}: {reason}"
    raise ConfigError([Problem("provider-failed", message, secret.location, "password")]) from cause
