"""The profiles that a registry has loaded, and their databases."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from dbconfig.config.loader import load_lean
from dbconfig.errors.light_dataclass import dataclass
from dbconfig.registry import sharding
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.loaded_profile import DEFAULT, AnyProfile
from dbconfig.settings.password_providers import Providers

if TYPE_CHECKING:
    from dbconfig.settings.profile import Profile


@dataclass(frozen=True, slots=True)
class Resolved:
    """A requested database."""

    key: tuple[str, str]  # the names of its profile and its own, however it was requested
    settings: DatabaseSettings
    label: str  # its name in logs


class Profiles:
    """Profiles by name; None is the registry's own profile."""

    def __init__(
        self, path: str | os.PathLike[str] | None, name: str | None, environ: Mapping[str, str] | None
    ) -> None:
        """Configure what to load at first use."""
        self.lock: Any = threading.RLock()  # the registry's only lock, held while anything is loaded or created
        self.providers: Providers = Providers()
        self.forgetting: Callable[[], None] = lambda: None  # further cleanup in a forked child
        self._path = path
        self._name = name
        # A function, so that debuggers and crash reporters, which print attributes, cannot print its secrets.
        self._environ: Callable[[], Mapping[str, str] | None] = lambda: environ
        self._given: AnyProfile | None = None
        self._exchanged = False
        # Read without the lock: an entry is complete when it is added, and never changes.
        self._found: dict[str | None, AnyProfile] = {}

    def give(self, profile: AnyProfile) -> None:
        """Use a profile created in code: nothing is read from files."""
        self._given = profile
        self._begin_anew()

    def get(self, name: str | None = None) -> AnyProfile:
        """Return a profile, which is loaded at first use.

        Raises:
            ConfigError: it cannot be used.
        """
        found = self._found.get(name)
        if found is not None:
            return found
        with self.lock:
            found = self._found.get(name)
            if found is None:
                found = self._load(name)
                self._found[name] = found
                self._found.setdefault(found.name, found)
            return found

    def public(self) -> Profile:
        """Return the registry's own profile as the application sees it, always the same one."""
        from dbconfig.settings.profile import Profile  # its imports are slow

        found = self.get()
        if isinstance(found, Profile):
            return found
        with self.lock:
            found = self.get()
            made = Profile.of(found)
            self._found.update({name: made for name, each in self._found.items() if each is found})
            return made

    def loaded(self) -> AnyProfile | None:
        """Return the registry's own profile if it has been loaded."""
        return self._found.get(None)

    def resolve(self, database: str, name: str | None = None) -> Resolved:
        """Return a database of a profile.

        Raises:
            ConfigError: the profile or the database does not exist or cannot be used.
        """
        return self.resolve_in(self.get(name), self.shard_of(database, name))

    def shard_of(self, database: str, name: str | None = None) -> str:
        """Return the database for a name in this context: the chosen shard, if it is divided."""
        return sharding.resolved(id(self), self.get(name), database)

    def every_shard(self, database: str) -> list[str]:
        """Return the database, or all of its shards if none was chosen."""
        return sharding.spread(id(self), self.get(), database)

    def resolve_in(self, profile: AnyProfile, database: str) -> Resolved:
        label = profile.name if database == DEFAULT else f"{profile.name}/{database}"
        settings = profile.database(database).provided_by(self.providers)
        return Resolved((profile.name, database), settings, label)

    def forget(self) -> bool:
        """Let the next use load the profiles again; return False in tests, where they are kept."""
        if not self._exchanged:
            self._begin_anew()
        return not self._exchanged

    @property
    def exchanged(self) -> bool:
        """Whether tests have replaced the profile's databases with their own."""
        return self._exchanged

    def known(self) -> dict[str | None, AnyProfile]:
        """Return the profiles that have been loaded, by the names under which they were asked for."""
        return dict(self._found)

    def read_again(self, known: Mapping[str | None, AnyProfile]) -> dict[str | None, AnyProfile]:
        """Load the same profiles from their files again; those in use are unchanged."""
        if self._given is not None:
            return dict(known)
        again = {each.name: self._load(each.name if name else None) for name, each in known.items()}
        return {name: again[each.name] for name, each in known.items()}

    def replace(self, profiles: Mapping[str | None, AnyProfile]) -> None:
        """Use other profiles from now on."""
        self._found = dict(profiles)

    @contextmanager
    def exchange(self, databases: Mapping[str, DatabaseSettings]) -> Iterator[None]:
        """Replace the databases of the registry's own profile, for tests.

        Profiles are kept meanwhile: otherwise an application that calls dispose() would return to its own database.
        """
        profile, given = self.get(), self._given
        self.give(profile.with_databases(dict(databases)))
        self._exchanged = True
        try:
            yield
        finally:
            self._exchanged = False
            self._given = given
            self._begin_anew()

    def protected_elsewhere(self, settings: DatabaseSettings, *, destructive: bool) -> str:
        """Return the name of another profile that protects the same database, or ""."""
        if self._given is not None:
            return ""  # created in code: no other profiles exist
        from dbconfig.config import protected_databases

        return protected_databases.protected_elsewhere(
            self.get(), settings, destructive=destructive, path=self._path, environ=self._environ()
        )

    def refuse_elsewhere(self, settings: DatabaseSettings, what: str, *, destructive: bool) -> None:
        """Raise if another profile protects a database.

        Raises:
            ConfigError: another profile protects it.
        """
        if self._given is None:
            from dbconfig.config import protected_databases

            protected_databases.refuse_elsewhere(
                self.get(), settings, what, destructive=destructive, path=self._path, environ=self._environ()
            )

    def before_fork(self) -> None:
        # Otherwise the child would inherit what another thread has half created.
        self.lock.acquire()

    def after_fork_in_parent(self) -> None:
        with suppress(RuntimeError):  # it was interrupted before it could be acquired
            self.lock.release()

    def after_fork_in_child(self) -> None:
        self.lock = threading.RLock()
        self.providers.forget_hanging()
        self.forgetting()

    def _begin_anew(self) -> None:
        self._found = {} if self._given is None else {None: self._given, self._given.name: self._given}

    def _load(self, name: str | None) -> AnyProfile:
        return load_lean(self._name if name is None else name, path=self._path, environ=self._environ())
