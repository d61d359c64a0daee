"""The settings are validated and dumped as pydantic's own generator of schemas would do it."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from dbconfig.settings.database import DatabaseSettings, ReplicaSettings

VALUES: tuple[Any, ...] = (
    *(None, True, False, -2, -1, 0, 1, 7, 300, 70_000, 10**8, 10**12, 0.0005, 0.5, 1.5, float("nan"), "", "a", "a b"),
    *("5", "30s", "500ms", "on", "debug", "none", "require", "QueuePool", "SERIALIZABLE", "qmark", "route", "discard"),
    *(b"a", [], ["a"], ["route"], [1], {}, {"a": "b"}, {"password": "hidden"}, {"a": None}, {1: 2}, {"env": "HOME"}),
    *(
        "postgresql",
        "postgresql://u:hidden@h/d?password=hidden",
        [{"host": "r", "weight": 2}],
        [{"weight": -1}],
        object,
    ),
)


class Own(DatabaseSettings):
    """An application's class, whose schema pydantic generates."""


class OwnReplica(ReplicaSettings):
    """Likewise."""


def outcome(model: type[BaseModel], data: dict[str, Any]) -> Any:
    try:
        made = model.model_validate(data)
    except ValidationError as error:
        return [
            (each["loc"], each["type"], each["msg"]) for each in error.errors(include_url=False, include_input=False)
        ]
    return made.model_dump(), dumped(made, mode="json"), dumped(made, mode="json as text"), dict(made)


def dumped(made: BaseModel, mode: str) -> Any:
    """Return a dump in JSON, or its error: some values have none."""
    try:
        return made.model_dump(mode="json") if mode == "json" else made.model_dump_json()
    except PydanticSerializationError as error:
        return str(error)


@pytest.mark.parametrize(
    ("ours", "pydantics", "key"),
    [
        *((DatabaseSettings, Own, key) for key in (*DatabaseSettings.model_fields, "weight", "unknown")),
        *((ReplicaSettings, OwnReplica, key) for key in ("url", "port", "pool_size", "replicas", "weight", "unknown")),
    ],
)
def test_every_key_takes_and_refuses_what_pydantics_own_schema_does(
    ours: type[BaseModel], pydantics: type[BaseModel], key: str
) -> None:
    address = {} if key in ("url", "drivername") else {"drivername": "postgresql", "host": "h", "database": "d"}
    for value in VALUES:
        data = {**address, key: value}
        assert repr(outcome(ours, data)) == repr(outcome(pydantics, data)), value


def test_the_schema_is_made_without_pydantics_generator() -> None:
    def generate(source: Any) -> NoReturn:
        raise AssertionError("pydantic generates the schema")

    assert DatabaseSettings.__get_pydantic_core_schema__(DatabaseSettings, generate)
    assert ReplicaSettings.__get_pydantic_core_schema__(ReplicaSettings, generate)
    with pytest.raises(AssertionError, match="generates"):
        Own.__get_pydantic_core_schema__(Own, generate)


def test_the_class_of_an_application_has_its_own_rules() -> None:
    class Strict(DatabaseSettings):
        team: str

    with pytest.raises(ValidationError, match="team"):
        Strict.model_validate({"url": "sqlite://"})
    assert Strict.model_validate({"url": "sqlite://", "team": "data"}).team == "data"
    with pytest.raises(ValidationError):
        Strict.model_validate({"team": "data"})
