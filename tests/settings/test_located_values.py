"""The text of a file in messages."""

import copy
import pickle

import pytest

from dbconfig.config.document import parse
from dbconfig.errors import ConfigError
from dbconfig.settings.located_values import MappingNode, Source


def excerpt(text: str, line: int) -> str:
    try:
        root, _ = parse(text, "a.yaml")
    except ConfigError as error:
        source = error.problems[0].location.text
    else:
        source = root.location.text
    return source.excerpt(line)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("pool_size: 20", "pool_size: 20"),
        ("pool_size: 20  # hunter", "pool_size: 20"),
        ("password: hunter", "password: ***"),
        ("password: 'hunter'", "password: ***"),
        ("password: !hunter x", "password: ***"),
        ("password: [hunter]", "password: [***]"),
        ("password: {hunter}", "password: {***}"),
        ("host: 'db'", "host: 'db'"),
        ("host: !x &y db", "host: !x &y db"),
        ("password: &x ${PW}", "password: ${PW}"),
        ("url: postgresql://app:hunter@db/shop", "url: postgresql://***"),
        ("'postgresql://app:hunter@db/shop': 1", "postgresql://***: 1"),
        ("connect_args: {password: hunter, timeout: 3}", "connect_args: {password: ***, timeout: 3}"),
    ],
)
def test_an_excerpt_shows_the_line_without_its_secrets(line, expected):
    assert excerpt(line + "\n", 1) == expected


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("password: hunter\npool_size 3\n\n- x", 1, "password: ***"),
        ("a: 1\nhunter wants it\nb: 2\n", 2, "***"),
        ("a: [\npassword: hunter", 2, "password: ***"),
        ("a: 'b\n# hunter", 2, ""),
        ("url: sqlite:///:memory:", 1, "url: sqlite:///:memory:"),
    ],
)
def test_an_excerpt_of_a_file_that_is_no_yaml_shows_keys_and_plain_values_only(text, line, expected):
    assert excerpt(text, line) == expected


def test_the_lines_of_a_secret_block_are_masked():
    text = "password: |\n  hunter\n  two\npool_size: 1\n"
    assert [excerpt(text, line) for line in (1, 2, 3)] == ["password: ***", "***", "***"]


def test_a_secret_is_masked_wherever_else_it_stands():
    assert excerpt("password: hunter\nusername: hunter\n", 2) == "username: ***"


def test_a_line_that_is_not_there_is_empty():
    assert Source("a.yaml", "a: 1").excerpt(7) == ""


def test_a_source_is_neither_printed_nor_pickled():
    source = Source("a.yaml", "password: hunter")
    assert repr(source) == "<text of a.yaml>"
    assert b"hunter" not in pickle.dumps(source)
    assert copy.deepcopy(source) is source


def test_a_value_does_not_print_itself():
    root, _ = parse("password: hunter\n", "a.yaml")
    assert isinstance(root, MappingNode)
    assert list(root) == ["password"]
    assert "hunter" not in repr(root)
    assert repr(root.entries["password"].node) == "<value at a.yaml:1:11>"
