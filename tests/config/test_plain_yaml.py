"""Plain files are read without PyYAML, exactly as PyYAML reads them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dbconfig.cli.commands.init import templates
from dbconfig.config import plain_yaml

LOADERS = [loader for name in ("CSafeLoader", "SafeLoader") if (loader := getattr(yaml, name, None)) is not None]
PIECES = (
    *(
        "a",
        "b: ",
        ":",
        ": ",
        " ",
        "  ",
        "#",
        " #",
        "'",
        '"',
        "''",
        "\\",
        "-",
        "- ",
        "-1",
        "1",
        "~",
        "?",
        "? ",
        "%",
        "@",
    ),
    *(
        "{",
        "}",
        "[",
        "]",
        ",",
        "&x",
        "*x",
        "!",
        "!!str",
        "|",
        ">",
        "---",
        "...",
        "<<: ",
        "=",
        "é",
        "\xa0",
        "\x85",
        "\t",
    ),
    *(
        "no",
        "null",
        "key_1: ",
        "${A:-b}",
        "sqlite:///a.db",
        "\ufeff",
        "\u2028",
        "🙂",
        "`",
        "a\\b",
        "a-b: ",
        "_",
        "x" * 130,
    ),
)
LINES = st.lists(st.sampled_from(PIECES), max_size=7).map("".join)
KEYS = st.sampled_from(("url", "pool_size", "databases", "b", "a-b", "no", "é", "1", "k k", "<<", "x" * 127))
VALUES = st.one_of(LINES, st.sampled_from(("", " # c", "5", "'it' # c", '"x y"', "${DB:?the url, such as a://b}")))
PLAIN = st.builds(
    "{}{}:{}{}".format, st.sampled_from(("", "", "", " ", "  ", "    ")), KEYS, st.sampled_from((" ", "")), VALUES
)
TEXTS = st.lists(st.one_of(PLAIN, PLAIN, LINES), max_size=8).map("\n".join)


def seen(event: Any) -> tuple[Any, ...]:
    name = type(event).__name__
    if not name.startswith(("Scalar", "MappingStart")):
        return (name,)  # nobody asks where the others are
    marks = [(mark.line, mark.column) for mark in (event.start_mark, event.end_mark)]
    rest = (event.value, event.style or "") if name == "ScalarEvent" else ()
    return (name, *marks, *rest, event.anchor, event.tag)


def by_pyyaml(loader: Any, text: str) -> list[tuple[Any, ...]]:
    parser, found = loader(text), []
    while not found or found[-1][0] != "StreamEndEvent":
        found.append(seen(parser.get_event()))
    return found


@given(TEXTS)
@example("a: 1  # x\nb:\n  # c\n  c: \"x y\" # z\n  d: it#s a\n\ne: 'q'\n")
@example("a: b: c")
@example("a: b\n  c")
@example("a:\nb: 1")
@example("a: 'x'y")
@example("a: 'it''s'")
@example("a: - b")
@example("a: -")
@example(" no")
@example("  a: 1\nb: 2")
@settings(max_examples=1500, deadline=None)
def test_what_is_read_without_pyyaml_is_read_as_pyyaml_reads_it(text: str) -> None:
    found = plain_yaml.events(text)
    if found is None:
        return
    events = [seen(event) for event in found]
    for loader in LOADERS:
        assert events == by_pyyaml(loader, text)


@pytest.mark.parametrize(
    "text", [*templates.profiles().values(), "databases:\n  a:\n    url: sqlite://\n  b:\n    url: 'x'\n"]
)
def test_plain_files_are_read_without_pyyaml(text: str) -> None:
    assert plain_yaml.events(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "# nothing",
            "a",
            " no",
            "a:",
            "a: [1]",
            "a: {b: c}",
            "- a",
            "a: &x b",
            "a: !!str b",
            "a: |\n  b",
            "---\na: b",
        ),
        *("%YAML 1.1\n---\na: b", "? a", "a: 'b", 'a: "\\x41"', "a:\tb", "a: b\n\tc: d", "<<: *x", "a: b:", "a: 'b' c"),
        *("a: b\n c", "x: - 1", "a: 'it''s'", "  a: 1\nb: 2", "a:\nb: 1"),
    ],
)
def test_everything_else_is_left_to_pyyaml(text: str) -> None:
    assert plain_yaml.events(text) is None


def test_a_plain_profile_is_loaded_without_the_import_of_yaml(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir()
    (config / "default.yaml").write_text("pool_size: 5  # connections\n")
    (config / "development.yaml").write_text("url: sqlite:///app.db\n")
    program = "import sys; from dbconfig import Registry; Registry(sys.argv[1]).engine(); print('yaml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, str(config)], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("False\n", "")
