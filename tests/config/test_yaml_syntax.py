"""What a person reads about a file that is not YAML."""

import pytest
import yaml

from dbconfig.config.yaml_syntax import explained
from dbconfig.settings.located_values import Source


@pytest.mark.parametrize("loader", [yaml.CSafeLoader, yaml.SafeLoader])
@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("a: 1\nconnect_args:\n\ttimeout: 3\n", (3, 1), "a tab cannot indent YAML"),
        ("a: 1\npool_size 4\nb: 2\n", (2, 1), "a key needs a colon and a space before its value"),
        ("password: 'hunter\na: 1\n", (1, 11), "the quotation mark that opens here is never closed"),
        ("password: [hunter\na: 1\n", (1, 11), "a flow mapping or list is not closed: `}` or `]` is missing"),
        ("password: @hunter\n", (1, 11), "a value cannot start with this character: in YAML it cannot start any token"),
        ("password: %hunter\n", (1, 11), "a value cannot start with this character: in YAML it cannot start any token"),
        ("password: a: b\n", (1, 12), "a `:` at the end of a value, or before a space in it, starts a mapping"),
        (
            "url: sqlite:///:memory:\n",
            (1, 23),
            "a `:` at the end of a value, or before a space in it, starts a mapping",
        ),
        ('password: "\\hunter"\n', (1, 12), 'a `\\` in "…" begins an escape sequence, and this is not one'),
        ("password: |hunter\n", (1, 12), "after `|` or `>` the text starts on the next line"),
        ("password: - hunter\n", (1, 11), "a `-` and a space start a list, which is not allowed here"),
        (
            "password: 'a'hunter'\n",
            (1, 14),
            "this line matches neither the indentation nor the quotation marks above it",
        ),
        ("a: 1\n b: 2\n", (2, 2), "this key is indented, but not part of the key above it"),
        ('url: "sqlite:///C:\\Users\\ann"\n', (1, 19), 'a `\\` in "…" begins an escape sequence, and this is not one'),
        ('url: "sqlite:///C:\\u\\x"\n', (1, 19), 'a `\\` in "…" begins an escape sequence, and this is not one'),
        ('url: "sqlite:///C:\\x\\y"\n', (1, 19), 'a `\\` in "…" begins an escape sequence, and this is not one'),
    ],
)
def test_a_mistake_is_told_where_it_was_made(loader, text, place, message):
    with pytest.raises(yaml.MarkedYAMLError) as caught:
        list(yaml.parse(text, loader))
    line, column, said, help = explained(caught.value, Source("a.yaml", text))
    assert (said, line) == (message, place[0])
    assert help
    assert "hunter" not in said + help
    if loader is yaml.CSafeLoader:  # PyYAML's own scanner counts some columns otherwise
        assert column == place[1]


def test_a_complaint_that_is_not_known_repeats_nothing_of_the_file():
    error = yaml.MarkedYAMLError(problem="found undefined thing 'hunter'")
    assert explained(error, Source("a.yaml")) == (1, 1, "found undefined thing …", "")
