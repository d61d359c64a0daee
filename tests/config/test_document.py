"""A YAML file, or why it is none."""

import os
import tracemalloc

import pytest

from dbconfig.config.document import SIZE_LIMIT, parse, read
from dbconfig.errors import ConfigError
from dbconfig.errors.problem import Problem
from dbconfig.settings.value_types import plain


def values(text: str) -> dict:
    root, problems = parse(text, "a.yaml")
    assert problems == []
    return plain(root)


def refused(text: str) -> Problem:
    with pytest.raises(ConfigError) as caught:
        parse(text, "a.yaml")
    (problem,) = caught.value.problems
    return problem


def wrong(text: str) -> list[tuple[str, str, str]]:
    _, problems = parse(text, "a.yaml")
    return [(problem.slug, str(problem.location), problem.key) for problem in problems]


def test_every_value_knows_its_line_and_column():
    root, _ = parse("# settings\nurl: sqlite://\ndatabases:\n  one: {echo: true}\n", "config/a.yaml")
    databases = root.entries["databases"].node
    echo = databases.entries["one"].node.entries["echo"]
    assert str(root.entries["url"].node.location) == "config/a.yaml:2:6"
    assert str(echo.key) == "config/a.yaml:4:9"


def test_values_are_those_of_yaml_1_2():
    text = "a: no\nb: 010\nc: 1:30\nd: 2024-01-01\ne: 20\nf: true\ng: null\nh: '20'\ni: !!str 20\nj: [1, x]\n"
    assert values(text) == {
        **{"a": "no", "b": "010", "c": "1:30", "d": "2024-01-01", "e": 20},
        **{"f": True, "g": None, "h": "20", "i": "20", "j": [1, "x"]},
    }


@pytest.mark.parametrize(
    "data",
    [
        b"a: 1\r\nb: 2\r\n",
        b"a: 1\rb: 2\r",
        b"\xef\xbb\xbfa: 1\nb: 2",
        b"---\na: 1\nb: 2\n...\n",
        b"%YAML 1.2\n---\n{a: 1, b: 2}",
    ],
)
def test_line_ends_marks_and_headers_of_any_editor_are_read(tmp_path, data):
    path = tmp_path / "a.yaml"
    path.write_bytes(data)
    root, problems = read(path, "a.yaml")
    assert (plain(root), problems) == ({"a": 1, "b": 2}, [])


def test_anchors_and_merge_keys_are_written_out_and_own_keys_win():
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [{x: 7}, *a]}\nd: *a\n"
    assert values(text) == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 7, "y": 2}, "d": {"x": 1, "y": 2}}


def test_a_key_twice_is_told_at_the_second_with_the_line_of_the_first():
    _, (problem,) = parse("databases:\n  one:\n    url: a\n    url: b\n", "a.yaml")
    assert (problem.slug, str(problem.location), problem.key) == ("duplicate-key", "a.yaml:4:5", "databases.one.url")
    assert problem.message == "duplicate key 'url': it is also on line 3"
    assert [(str(place), words) for place, words in problem.also] == [("a.yaml:3:5", "first here")]


@pytest.mark.parametrize(
    ("text", "slug", "place", "key"),
    [
        ("a: !!python/object/apply:os.system [ls]", "yaml-tag", "a.yaml:1:4", "a"),
        ("a: !ENV X", "yaml-tag", "a.yaml:1:4", "a"),
        ("a: {b: !!binary x}", "yaml-tag", "a.yaml:1:8", "a.b"),
        ("1: x", "wrong-type", "a.yaml:1:1", ""),
        ("true: x", "wrong-type", "a.yaml:1:1", ""),
        ("? [a, b]\n: x", "wrong-type", "a.yaml:1:3", ""),
        ("<<: 3", "wrong-type", "a.yaml:1:1", "<<"),
        ("password: {hunter}", "invalid-value", "a.yaml:1:12", "password"),
        ("password: {12345}", "invalid-value", "a.yaml:1:12", "password"),
    ],
)
def test_what_no_configuration_has_is_told_and_the_rest_is_read(text, slug, place, key):
    assert wrong(f"{text}\n") == [(slug, place, key)]


def test_a_tag_is_named_but_not_where_it_may_be_a_secret():
    _, (tag,) = parse("a: !!python/name:os.system x\n", "a.yaml")
    assert tag.message == "tag '!!python/name:os.system' is not allowed at 'a'"
    _, (secret,) = parse("password: !hunter x\n", "a.yaml")
    assert secret.message == "tag *** is not allowed at 'password'"
    assert secret.help == "put a text that begins with `!` in quotes: '…'"


@pytest.mark.parametrize(
    ("text", "slug", "message"),
    [
        ("", "missing-value", "the file is empty: there are no settings in it"),
        ("# only a comment\n", "missing-value", "the file is empty: there are no settings in it"),
        ("- a\n", "wrong-type", "the file must be a mapping of keys to values, not a list"),
        ("hello\n", "wrong-type", "the file must be a mapping of keys to values, not text"),
        ("a: 1\n---\nb: 2\n", "yaml-syntax", "a second document (`---`) starts here"),
        ("a: *b\n", "yaml-syntax", "alias '*b': no anchor above has this name"),
        ("password: *hunter\n", "yaml-syntax", "alias ***: no anchor above has this name"),
        ("a: &a [*a]\n", "yaml-syntax", "alias '*a' is inside its own anchor"),
        ("a: b\x07c\n", "yaml-syntax", "control character #x0007 is not allowed in YAML"),
        ("a: " + "[" * 40, "too-large", "nested more than 32 levels deep"),
    ],
)
def test_what_is_no_configuration_is_refused(text, slug, message):
    problem = refused(text)
    assert (problem.slug, problem.message) == (slug, message)


def test_an_alias_bomb_is_refused_without_being_written_out():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    tracemalloc.start()
    problem = refused("\n".join(lines))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert problem.slug == "alias-bomb"
    assert peak < 5_000_000


@pytest.mark.parametrize(
    ("data", "slug", "message"),
    [
        (b"a: \xe9\n", "yaml-syntax", "the file is not UTF-8: a character cannot be decoded"),
        ("a: 1\n".encode("utf-16"), "yaml-syntax", "the encoding looks like UTF-16"),
        ("a: 1\n".encode("utf-16-le"), "yaml-syntax", "the encoding looks like UTF-16"),
        (b"#" * (SIZE_LIMIT + 1), "too-large", "larger than 256 KiB"),
    ],
)
def test_bytes_that_are_no_text_of_a_configuration_are_refused(tmp_path, data, slug, message):
    path = tmp_path / "a.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        read(path, "a.yaml")
    (problem,) = caught.value.problems
    assert (problem.slug, problem.message) == (slug, message)
    assert caught.value.__context__ is None


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    messages = []
    for name in ("fifo.yaml", "folder.yaml", "loop.yaml", "none.yaml"):
        with pytest.raises(ConfigError) as caught:
            read(tmp_path / name, name)
        messages += [problem.message for problem in caught.value.problems]
    assert messages == [
        "'fifo.yaml': it is not a regular file",
        "'folder.yaml': it is a folder, not a regular file",
        "'loop.yaml': its symbolic links form a loop",
        "'none.yaml': it does not exist",
    ]


def test_an_anchor_before_a_secret_is_one_where_something_uses_it():
    root, problems = parse("password: &one hunter\ndatabases: {a: {password: *one}}\n", "a.yaml")
    assert not problems
    assert root.entries["password"].node.value == "hunter"
