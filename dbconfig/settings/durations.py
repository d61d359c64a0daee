"""Durations such as `30m`: parsed, written, and their pattern."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from dbconfig.errors.late_pattern import late_pattern
from dbconfig.settings.findings import reject
from dbconfig.settings.value_types import FLAGS, ambiguity, flag, kind_of, plain

LONGEST_CONNECT: Final = 3600  # seconds, of connect_timeout and of the drivers' own arguments
PATTERN: Final = r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?(ms|s|m|h|d)?"  # also used in the JSON schema
_DURATION = late_pattern(PATTERN, re.ASCII)
_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}


def parsed(text: str) -> float | None:
    """Return the seconds that a text such as `500ms`, `5s` or `30m` means; None if it is not a duration.

    >>> parsed("500ms"), parsed("1.5h"), parsed("1:30")
    (0.5, 5400.0, None)
    """
    match = _DURATION.fullmatch(text)
    return None if match is None else float(match[1]) * _UNIT_SECONDS[match[2]]


def seconds(value: Any) -> float:
    raw = plain(value)
    if isinstance(raw, (int, float)) and not isinstance(raw, bool):
        if not math.isfinite(raw):
            raise reject("wrong-type", "must be a finite number of seconds")
        return float(raw)
    found = parsed(raw) if isinstance(raw, str) and not ambiguity(value) else None
    if found is not None:
        return found
    if raw == "-1":
        return -1.0
    instead = f"; YAML 1.1 reads this as {ambiguity(value)}" if ambiguity(value) else f", not {kind_of(raw)}"
    raise reject(
        "ambiguous-value" if ambiguity(value) else "wrong-type",
        f"must be a number of seconds or a duration{instead}",
        "500ms, 5s, 30m, 1h",
    )


def seconds_or_off(value: Any) -> float | None:
    """Accept a duration, or `false` for never."""
    raw = plain(value)
    if raw is False or (isinstance(raw, str) and FLAGS.get(raw.lower()) is False):
        return None
    return seconds(value)


def check(value: Any) -> bool | float:
    """Accept a boolean, or the idle seconds after which a connection is pinged."""
    raw = plain(value)
    if isinstance(raw, bool) or (isinstance(raw, str) and raw.lower() in FLAGS):
        return flag(value)
    try:
        found = seconds(value)
    except PydanticCustomError:
        raise reject(
            "wrong-type", f"must be true or false, or a duration, not {kind_of(raw)}", "1s, true or false"
        ) from None
    if found < 0:
        raise reject("out-of-range", "must be true or false, or a duration of at least 0")
    return found


Seconds = Annotated[float, BeforeValidator(seconds)]


SecondsOrOff = Annotated[float | None, BeforeValidator(seconds_or_off)]


Check = Annotated[bool | float, BeforeValidator(check)]


def written(seconds: float) -> str:
    """Return seconds in the notation of the YAML files: 500ms, 5s, 30m, 1h.

    >>> written(0.5), written(90.0), written(1800.0), written(-1.0)
    ('500ms', '90s', '30m', '-1')
    """
    if seconds < 0 or seconds == 0:
        return f"{seconds:g}"
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1000:g}ms"
