"""The schema of the settings for pydantic-core, from their fields: pydantic's own generator takes ten times as long."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
from pydantic_core import CoreSchema
from pydantic_core import core_schema as core

from dbconfig.settings.value_types import Shown

_LIMITS: Final = ("ge", "gt", "le", "lt")


def of_model(
    model: type[BaseModel],
    fields: dict[str, core.ModelField],
    before: Callable[[Any], Any],
    after: Callable[[Any], Any],
) -> core.AfterValidatorFunctionSchema:
    """Return the schema of a model, all of whose values two functions see: before and after their validation."""
    config = core.CoreConfig(title=model.__name__, extra_fields_behavior="forbid", hide_input_in_errors=True)
    inner = core.model_fields_schema({name: fields[name] for name in model.model_fields}, model_name=model.__name__)
    checked = core.no_info_before_validator_function(before, inner)
    made = core.model_schema(model, checked, post_init="model_post_init", config=config)
    return core.no_info_after_validator_function(after, made)


def of_fields(model: type[BaseModel], *, known: dict[str, CoreSchema]) -> dict[str, core.ModelField]:
    """Return the schemas of a model's fields; `known` are those of fields with a type of their own."""
    made: dict[str, core.ModelField] = {}
    for name, field in model.model_fields.items():
        schema = known.get(name) or _annotated(field.annotation, field.metadata, {})
        made[name] = {"type": "model-field", "schema": {"type": "default", "schema": schema, "default": field.default}}
    return made


def _annotated(kind: Any, metadata: Iterable[Any], limits: dict[str, Any]) -> CoreSchema:
    for each in metadata:
        for name in _LIMITS:
            if hasattr(each, name):
                limits = {**limits, name: getattr(each, name)}
    schema = _of(kind, limits)
    for each in metadata:
        if isinstance(each, BeforeValidator):
            function: Any = each.func
            schema = core.no_info_before_validator_function(function, schema)
        elif isinstance(each, Shown):
            schema = each.in_dumps(schema)
    return schema


def _of(kind: Any, limits: dict[str, Any]) -> CoreSchema:
    """Return the schema of a type; limits are those of the numbers in it."""
    if isinstance(kind, type):
        return _of_class(kind, limits)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _annotated(arguments[0], arguments[1:], limits)
    if origin in (Union, UnionType):
        choices: list[Any] = [_of(each, limits) for each in arguments if each is not NoneType]
        inner = choices[0] if len(choices) == 1 else core.union_schema(choices)
        return {"type": "nullable", "schema": inner} if NoneType in arguments else inner
    if origin is Literal:
        return core.literal_schema(list(arguments))
    if origin is dict:
        return core.dict_schema(_of(arguments[0], {}), _of(arguments[1], {}))
    return core.tuple_schema([_of(arguments[0], {})], variadic_item_index=0)


def _of_class(kind: Any, limits: dict[str, Any]) -> CoreSchema:
    if kind is bool:
        return {"type": "bool"}
    if kind is str:
        return {"type": "str"}
    if kind is int:
        return core.int_schema(**limits)
    if kind is float:
        return core.float_schema(**limits)
    return core.any_schema() if kind is Any else core.is_instance_schema(kind)
