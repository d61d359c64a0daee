"""The two explicit sources of a profile: documents, and the environment above them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_settings import PydanticBaseSettingsSource

from dbconfig.config.layering import PREFIX
from dbconfig.settings.located_values import Scalar
from dbconfig.settings.profile import Profile


class TreeSource(PydanticBaseSettingsSource):
    """One of a profile's two explicit sources: the values of documents, or those of `DBCONFIG_…` variables."""

    def __init__(self, data: Mapping[str, Any], *, environment: bool) -> None:
        super().__init__(Profile)
        self._data = data
        self._environment = environment
        self.__name__ = "environment" if environment else "documents"

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return self._data.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._part(self._data)

    def _part(self, data: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in data.items():
            if isinstance(value, Mapping):
                found[key] = self._part(value)
            elif _from_environment(value) is self._environment:
                found[key] = value
        return found


def _from_environment(value: Any) -> bool:
    return isinstance(value, Scalar) and value.location.variable.startswith(PREFIX)


def validated(data: Mapping[str, Any]) -> Profile:
    """Return a profile of these values; pydantic's error knows the place of each that is wrong."""
    make: Any = Profile  # whose arguments are an application's; the sources are ours alone
    made: Profile = make(sources=(TreeSource(data, environment=True), TreeSource(data, environment=False)))
    return made
