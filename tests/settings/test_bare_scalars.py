"""What a bare YAML value means."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbconfig.settings import bare_scalars
from dbconfig.settings.bare_scalars import resolve


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("", None), ("~", None), ("null", None), ("NULL", None)),
        *(("true", True), ("False", False), ("TRUE", True)),
        *(
            ("20", 20),
            ("-1", -1),
            ("+3", 3),
            ("0", 0),
            ("1.5", 1.5),
            ("1e3", 1000.0),
            (".5", 0.5),
            ("-.inf", -math.inf),
        ),
        *(("text", "text"), ("30m", "30m"), ("p@ss", "p@ss"), ("1.2.3.4", "1.2.3.4"), ("٣", "٣")),
    ],
)
def test_a_value_is_what_yaml_1_2_says(text, value):
    assert resolve(text) == (value, "")
    assert type(resolve(text)[0]) is type(value)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        *(("no", "a boolean"), ("Yes", "a boolean"), ("off", "a boolean"), ("y", "a boolean")),
        *(("010", "an octal number"), ("0o14", "a number in another base"), ("0x1F", "a number in another base")),
        *(("1:30", "a number in base 60"), ("1_000", "a number")),
        *(("2024-01-31", "a date"), ("2024-01-31 10:00:00", "a date")),
    ],
)
def test_a_value_that_yaml_1_1_reads_otherwise_stays_text_and_says_so(text, meaning):
    assert resolve(text) == (text, meaning)


def test_not_a_number_is_a_number_that_settings_refuse():
    assert math.isnan(resolve(".nan")[0])


@given(st.text("0123456789-+._:eExobafnTt smhdINFyY~", min_size=1, max_size=12))
def test_the_patterns_say_what_is_said_without_them(text):
    value, meaning = resolve(text)
    assert isinstance(value, int) == bool(bare_scalars._INTEGER.fullmatch(text))
    assert isinstance(value, float) == bool(not isinstance(value, int) and bare_scalars._FLOAT.fullmatch(text))
    if isinstance(value, str) and meaning != "a boolean":
        found = (name for pattern, name in bare_scalars._YAML_1_1 if pattern.fullmatch(text))
        assert meaning == next(found, "")
