"""A profile: the settings of all its databases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import PrivateAttr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dbconfig.errors import ConfigError
from dbconfig.errors.problem import Problem
from dbconfig.settings import shards
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.findings import Finding, found_in
from dbconfig.settings.loaded_profile import DEFAULT, AnyProfile, expand

if TYPE_CHECKING:
    from typing import Unpack

    from dbconfig.settings.typed_dict import ProfileKeys


class Profile(AnyProfile, BaseSettings):
    """One environment's settings: the profile's own database, `default`, and further named ones.

    >>> Profile(name="tests", url="sqlite://").databases["default"].in_memory
    True
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True
    )

    name: str
    databases: dict[str, DatabaseSettings]

    _reason: str = PrivateAttr("")
    _folder: Path | None = PrivateAttr(None)
    _sources: tuple[str, ...] = PrivateAttr(())
    _shards: dict[str, tuple[str, ...]] = PrivateAttr(default_factory=dict)

    if TYPE_CHECKING:  # so that a type checker completes and checks the keys

        def __init__(
            self, *, name: str, databases: Mapping[str, ProfileKeys] = ..., **keys: Unpack[ProfileKeys]
        ) -> None:
            """Create a profile in code from its name and the settings that its file would contain."""

    else:

        def __init__(self, **values: Any) -> None:
            """Create a profile in code from its `name` and the settings that its file would contain.

            Raises:
                ConfigError: the settings are invalid; `.problems` lists everything that is wrong.
            """
            try:
                super().__init__(**values)
                return
            except ValidationError as error:
                problems = [_problem(loc, finding) for loc, findings in found_in(error) for finding in findings]
            # Not within `except`: pydantic's error contains the input with its secrets, and so would the traceback.
            values.clear()
            raise ConfigError(problems)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use only the arguments, never `$NAME`: the loader handles documents and the environment."""
        return (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, data: Any) -> Any:
        return expand(data) if isinstance(data, Mapping) else data

    def model_post_init(self, context: Any) -> None:
        """Record which databases are divided into shards."""
        super().model_post_init(context)
        self._shards = shards.grouped(self.databases)

    @classmethod
    def of(cls, loaded: AnyProfile) -> Profile:
        """Return the application's view of a loaded profile."""
        if isinstance(loaded, Profile):
            return loaded
        made = cls.model_construct(name=loaded.name, databases=loaded.databases)
        made._reason, made._folder, made._sources = loaded.reason, loaded.folder, loaded.sources
        return made

    def with_databases(self, databases: dict[str, DatabaseSettings]) -> Self:
        return self.model_copy(update={"databases": databases})


def _problem(loc: tuple[str, ...], finding: Finding) -> Problem:
    path = (*loc, *finding.at)
    key = ".".join(path[2:] if path[:2] == ("databases", DEFAULT) else path)
    message = finding.message or "it is not a setting of a database"
    said = message if not key or message.startswith(("`", "'")) else f"{key}: {message}"
    return Problem(finding.slug, said, key=key, help=finding.help)
