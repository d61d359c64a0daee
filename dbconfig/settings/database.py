"""The settings of one database: its keys checked together, and its address, password, and URL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from pydantic import PrivateAttr, model_validator
from pydantic_core import CoreSchema
from pydantic_core.core_schema import definition_reference_schema, definitions_schema, tuple_schema

from dbconfig.errors import ConfigError
from dbconfig.errors.problem import Location
from dbconfig.settings import core_schema, driver_timeouts, url_assembly
from dbconfig.settings.findings import reject_all
from dbconfig.settings.keys import REPLICAS, Keys, Origins, ReplicaKeys, system_key
from dbconfig.settings.known_drivers import choose, is_generic
from dbconfig.settings.password_providers import Providers
from dbconfig.settings.replicas import completed
from dbconfig.settings.rules import contradictions
from dbconfig.settings.secret_sources import Secret
from dbconfig.settings.url_parsing import DatabaseURL

if TYPE_CHECKING:
    from sqlalchemy import URL


class DatabaseSettings(Keys):
    """The validated settings of one database. Keys of `sqlalchemy.create_engine` keep their names and meanings. `repr`,

    dumps, and pickles contain no secrets.
    """

    replicas: tuple[ReplicaSettings, ...] = REPLICAS

    _providers: Providers | None = PrivateAttr(None)

    @classmethod
    def _completed(cls, data: Any) -> Any:
        return completed(data, is_replica="weight" in cls.model_fields)

    def _checked(self) -> Self:
        findings = contradictions(self)
        if findings:
            raise reject_all(findings)
        return self

    # For the classes of an application; those here have the schema below.
    _complete = model_validator(mode="before")(_completed)
    _consistent = model_validator(mode="after")(_checked)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        if cls not in (DatabaseSettings, ReplicaSettings):  # an application's own class, with its own rules
            return cast("CoreSchema", handler(source))
        replicas = tuple_schema([definition_reference_schema("replica")], variadic_item_index=0)
        fields = core_schema.of_fields(ReplicaSettings, known={"replicas": replicas})
        schema, replica = (
            core_schema.of_model(each, fields, each._completed, each._checked) for each in (cls, ReplicaSettings)
        )
        replica["ref"] = "replica"
        return definitions_schema(schema, [replica])

    def settle(self, origins: Origins, prefix: tuple[str, ...], folder: Path | None) -> None:
        """Record where the values came from; called once by the loader, before the settings are shared."""
        self._origins, self._prefix, self._folder = origins, prefix, folder
        for number, replica in enumerate(self.replicas):
            replica.settle(origins, (*prefix, "replicas", str(number)), folder)

    @property
    def address(self) -> DatabaseURL:
        """The parts of the address, from the URL and the keys that complete it; the password is not read."""
        return url_assembly.compose(self)

    @property
    def backend(self) -> str:
        """The database system: sqlite, postgresql, mysql, or mariadb; for a generic dialect, its whole name."""
        return self.address.backend

    @property
    def is_generic(self) -> bool:
        """Whether the database system is known only by its SQLAlchemy dialect."""
        return is_generic(self.backend)

    @property
    def in_memory(self) -> bool:
        """Whether this is SQLite without a file."""
        address = self.address
        if self.backend != "sqlite" or address.in_memory:
            return address.in_memory
        # A URI without a shared cache: each connection would get its own database, if it were not shared here.
        query = address.query
        is_private = "shared" not in query.get("cache", ()) and "memdb" not in query.get("vfs", ())
        return is_private and (address.database == "file::memory:" or "memory" in query.get("mode", ()))

    @property
    def path(self) -> Path | None:
        """The file of a SQLite database, absolute if the project folder is known; None for others, and for a URI."""
        database = self.address.database
        if self.backend != "sqlite" or self.in_memory or database is None or database.startswith("file:"):
            return None
        return (self._folder or Path()) / database

    def read_password(self) -> str | None:
        """Return the current password; None if there is none.

        Raises:
            ConfigError: the secret cannot be read.
        """
        password = self.address.password
        if password is None:
            return None
        if password.kind == "provider":
            return (self._providers or Providers()).ask(password, self)
        return password.read(self._folder)

    def means_the_same(self, other: DatabaseSettings) -> bool:
        """Return whether other settings would create the same engine; where they were written does not matter."""
        return self.__dict__ == other.__dict__ and self._folder == other._folder

    def prove_password(self) -> None:
        """Read the password once, to detect a missing one early; for a provider, only check that it is registered.

        Raises:
            ConfigError: it cannot be read, or the provider is not registered.
        """
        password = self.address.password
        if password is not None and password.kind == "provider":
            (self._providers or Providers()).find(password)  # calling it may use the network: not before a connect
        elif password is not None:
            password.read(self._folder)

    def provided_by(self, providers: Providers) -> Self:
        """Return the same settings, with a registry's own password providers if they need one."""
        password = self.address.password
        if password is None or password.kind != "provider":
            return self
        bound = self.model_copy()
        bound._providers = providers
        return bound

    def driver(self, *, asynchronous: bool = False) -> str:
        """Return the drivername with the installed driver, such as postgresql+psycopg2.

        Raises:
            ConfigError: the driver is not installed, or is of the other kind (synchronous or asynchronous).
        """
        key = system_key(self)
        return choose(self.address.drivername, self.origin(key), key, asynchronous=asynchronous)

    def only_asynchronous(self) -> bool:
        """Return whether only an asynchronous driver can be used: the named one, or the only one installed.

        Raises:
            ConfigError: no driver is installed.
        """
        try:
            self.driver()
        except ConfigError as error:
            try:
                self.driver(asynchronous=True)
            except ConfigError as other:
                named_asynchronous = any(problem.slug == "async-driver" for problem in error.problems)
                raise (other if named_asynchronous else error) from None
            return True
        return False

    def serves(self, *, asynchronous: bool) -> bool:
        """Return whether the driver that the profile names, if any, supports this kind of engine."""
        try:
            self.driver(asynchronous=asynchronous)
        except ConfigError as error:
            return error.problems[0].slug not in ("async-driver", "sync-driver")
        return True

    def sqlalchemy_url(self) -> URL:
        """Return SQLAlchemy's URL with the installed driver and the current secrets.

        Raises:
            ConfigError: a secret cannot be read, or the driver is not installed.
        """
        return self._url(self.driver(), secrets=True)

    def public_url(self, drivername: str | None = None) -> URL:
        """Return SQLAlchemy's URL without secrets, for an engine that reads them at each connect.

        Args:
            drivername: as `driver` returns it; None is the synchronous one.
        """
        return self._url(drivername or self.driver(), secrets=False)

    def _url(self, drivername: str, *, secrets: bool) -> URL:
        # The only place in the configuration half that needs SQLAlchemy, whose type the methods return.
        from sqlalchemy import URL

        parts, host, port = self.address, self.address.host, self.address.port
        query: dict[str, str | tuple[str, ...]] = {}
        for name, found in parts.query.items():
            texts = tuple(
                one.read() if isinstance(one, Secret) else one for one in found if secrets or isinstance(one, str)
            )
            if texts:
                query[name] = texts[0] if len(texts) == 1 else texts  # drivers treat only a list as a list
        if host is not None and host.startswith("/"):  # a URL cannot have the folder of a socket before its path
            query |= {"host": host} if port is None else {"host": host, "port": str(port)}
            host = port = None
        password = self.read_password() if secrets else None
        database = str(self.path) if self.path is not None else parts.database
        return URL.create(drivername, parts.username, password, host, port, database, query)


class ReplicaSettings(DatabaseSettings, ReplicaKeys):
    """The validated settings of one replica: those of its primary, with its own differences."""

    def layers(self, key: str) -> tuple[Location, ...]:
        """Return where a key was written: in the replica's own lines, or for its primary."""
        path = driver_timeouts.path(key, self.__dict__)
        *primary, _, _ = self._prefix or ("", "")
        found = (self._origins.get((*at, *path)) for at in (self._prefix, tuple(primary), ()))
        return next(filter(None, found), ())
