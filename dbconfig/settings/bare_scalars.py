"""Bare YAML scalars: their meaning in YAML 1.2's core schema, and in YAML 1.1 where it differs."""

from __future__ import annotations

import re

from dbconfig.errors.late_pattern import late_pattern

# https://yaml.org/spec/1.2.2/#103-core-schema, without its octal and hexadecimal forms: YAML 1.1 parsers disagree on
# them.
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_DIGITS = 40
_INTEGER = late_pattern(rf"[-+]?(?:0|[1-9][0-9]{{0,{_DIGITS - 1}}})", re.ASCII)
_FLOAT = late_pattern(
    r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    re.ASCII,
)

# https://yaml.org/type/: values that version 1.1 does not read as text, and that version 1.2 reads differently.
_OTHER_BOOLEANS = frozenset(
    ["y", "Y", "yes", "Yes", "YES", "n", "N", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF"]
)
_YAML_1_1 = (
    (late_pattern(r"[-+]?0[0-7_]+", re.ASCII), "an octal number"),
    (late_pattern(r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+)", re.ASCII), "a number in another base"),
    (late_pattern(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?", re.ASCII), "a number in base 60"),
    (late_pattern(r"[-+]?(?=[0-9._]*[0-9])[0-9_]*\.?[0-9_]*(?:[eE][-+]?[0-9]+)?", re.ASCII), "a number"),
    (late_pattern(r"\d{4}-\d{1,2}-\d{1,2}(?:[Tt \t].*)?", re.ASCII), "a date"),
)
# No number and no date begins with another character; none ends with the unit of a duration, except a date with a time.
_FIRST = frozenset("-+.0123456789_")
_UNITS = frozenset("smh")
_SHORTEST_DATE = len("2000-1-1")


def resolve(text: str) -> tuple[str | int | float | bool | None, str]:
    """Return the value of a bare scalar, and its meaning in YAML 1.1 if that differs.

    >>> resolve("20"), resolve("no"), resolve("1:30")
    ((20, ''), ('no', 'a boolean'), ('1:30', 'a number in base 60'))
    """
    if text in _NULL:
        return None, ""
    if text in _BOOLEAN:
        return _BOOLEAN[text], ""
    if text in _OTHER_BOOLEANS:
        return text, "a boolean"
    # What every process reads needs no regular expressions, whose compilation slows its startup: text, and durations.
    if text[0] not in _FIRST or (text[-1] in _UNITS and len(text) < _SHORTEST_DATE):
        return text, ""
    if text.isascii() and text.isdigit() and len(text) <= _DIGITS and (text[0] != "0" or text == "0"):
        return int(text), ""
    if _INTEGER.fullmatch(text):
        return int(text), ""
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan")), ""
    for pattern, meaning in _YAML_1_1:
        if pattern.fullmatch(text):
            return text, meaning
    return text, ""
