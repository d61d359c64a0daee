"""The profiles that a registry has loaded, and what they say about each database."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dbconfig.config import protected_databases
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
    """A database that was asked for."""

    key: tuple[str, str]  # the names of its profile and its own, however it was asked for
    settings: DatabaseSettings
    label: str  # its name in logs


class Profiles:
    """Profiles by name; None is the registry's own, whatever it is called."""

    def __init__(
        self, path: str | os.PathLike[str] | None, name: str | None, environ: Mapping[str, str] | None
    ) -> None:
        """Note what to load at first use."""
        self.lock: Any = threading.RLock()  # the registry's one lock: whoever loads or makes anything holds it
        self.providers: Providers = Providers()
        self.forgetting: Callable[[], None] = lambda: None  # what else is to be left to the parent in a forked child
        self._path = path
        self._name = name
        # A function, so that debuggers and crash reporters, which print attributes, print no secret out of it.
        self._environ: Callable[[], Mapping[str, str] | None] = lambda: environ
        self._given: AnyProfile | None = None
        self._exchanged = False
        # Read without the lock: an entry is complete before it is put in, and is never changed.
        self._found: dict[str | None, AnyProfile] = {}

    def give(self, profile: AnyProfile) -> None:
        """Take a profile that was made in code: nothing is read from files."""
        self._given = profile
        self._begin_anew()

    def get(self, name: str | None = None) -> AnyProfile:
        """Return a profile; it is loaded when it is first asked for.

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
        from dbconfig.settings.profile import Profile  # what it needs takes long to import

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
        """Return what a profile says about a database.

        Raises:
            ConfigError: the profile or the database does not exist or cannot be used.
        """
        return self.resolve_in(self.get(name), self.shard_of(database, name))

    def shard_of(self, database: str, name: str | None = None) -> str:
        """Return the database that a name means in this context: a shard, where it is divided and one was chosen."""
        return sharding.resolved(id(self), self.get(name), database)

    def every_shard(self, database: str) -> list[str]:
        """Return the database, or all of its shards where none was chosen."""
        return sharding.spread(id(self), self.get(), database)

    def resolve_in(self, profile: AnyProfile, database: str) -> Resolved:
        label = profile.name if database == DEFAULT else f"{profile.name}/{database}"
        settings = profile.database(database).provided_by(self.providers)
        return Resolved((profile.name, database), settings, label)

    def forget(self) -> bool:
        """Let the next use load the profiles again; return whether that is so, as it is outside of tests."""
        if not self._exchanged:
            self._begin_anew()
        return not self._exchanged

    @property
    def exchanged(self) -> bool:
        """Whether tests have replaced the profile's databases by their own."""
        return self._exchanged

    def known(self) -> dict[str | None, AnyProfile]:
        """Return the profiles that have been loaded, by the names under which they were asked for."""
        return dict(self._found)

    def read_again(self, known: Mapping[str | None, AnyProfile]) -> dict[str | None, AnyProfile]:
        """Return the same profiles as their files are now; those that are in use stay."""
        if self._given is not None:
            return dict(known)
        again = {each.name: self._load(each.name if name else None) for name, each in known.items()}
        return {name: again[each.name] for name, each in known.items()}

    def replace(self, profiles: Mapping[str | None, AnyProfile]) -> None:
        """Use other profiles from now on."""
        self._found = dict(profiles)

    @contextmanager
    def exchange(self, databases: Mapping[str, DatabaseSettings]) -> Iterator[None]:
        """Let the registry's own profile have other databases, for tests.

        Meanwhile nothing is forgotten: an application that disposes at its end would come back to its own database.
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
            return ""  # made in code: there are no other profiles beside it
        return protected_databases.protected_elsewhere(
            self.get(), settings, destructive=destructive, path=self._path, environ=self._environ()
        )

    def refuse_elsewhere(self, settings: DatabaseSettings, what: str, *, destructive: bool) -> None:
        """Refuse to act on a database that another profile protects.

        Raises:
            ConfigError: another profile protects it.
        """
        if self._given is None:
            protected_databases.refuse_elsewhere(
                self.get(), settings, what, destructive=destructive, path=self._path, environ=self._environ()
            )

    def before_fork(self) -> None:
        # Whatever another thread is making would be half made in the child.
        self.lock.acquire()

    def after_fork_in_parent(self) -> None:
        self.lock.release()

    def after_fork_in_child(self) -> None:
        self.lock = threading.RLock()
        self.providers.forget_hanging()
        self.forgetting()

    def _begin_anew(self) -> None:
        self._found = {} if self._given is None else {None: self._given, self._given.name: self._given}

    def _load(self, name: str | None) -> AnyProfile:
        return load_lean(self._name if name is None else name, path=self._path, environ=self._environ())
