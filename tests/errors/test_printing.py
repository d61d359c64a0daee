"""How a problem looks: carets below what they mean, long lines cut around it, several marks."""

import re

import pytest

from dbconfig import Location, Problem
from dbconfig.errors.printable import Palette, display_width
from dbconfig.errors.problem import LINE_WIDTH, render


class Text:
    """A file without secrets."""

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")

    def excerpt(self, line: int) -> str:
        return self._lines[line - 1] if 0 < line <= len(self._lines) else ""

    def column(self, line: int, column: int) -> int:
        return column


def drawn(text: str, line: int, column: int, width: int = 1, **more: object) -> list[str]:
    source = Text(text)
    at = Location("config/production.yaml", line, column, width=width, text=source)
    also = tuple(
        (Location("config/production.yaml", *place, text=source), words)  # type: ignore[misc]
        for place, words in more.pop("also", ())  # type: ignore[attr-defined]
    )
    return render(Problem("unknown-key", "wrong", at, also=also)).splitlines()[2:]


def column_of_caret(lines: list[str]) -> int:
    marks = next(line for line in lines if "^" in line)
    return display_width(marks[: marks.index("^")])


@pytest.mark.parametrize("before", ["", "日本語: ", "e\u0301e\u0301: ", "\t", "a\tb: ", "\u200bx: ", "ｆｕｌｌ: "])
def test_the_caret_stands_below_the_cell_that_it_means(before: str) -> None:
    lines = drawn(f"{before}KEY: 1", 1, len(before) + 1, 3)
    line = next(line for line in lines if "KEY" in line)
    assert column_of_caret(lines) == display_width(line[: line.index("KEY")])
    assert "^^^" in "".join(lines)


@pytest.mark.parametrize("position", [0, 40, 90, 200, 900])
def test_a_long_line_is_cut_around_its_mark(position: int) -> None:
    text = "x" * position + "KEY" + "y" * 1000
    lines = drawn(text, 1, position + 1, 3)
    line = next(line for line in lines if "KEY" in line)
    assert display_width(line) <= LINE_WIDTH + 4
    assert column_of_caret(lines) == display_width(line[: line.index("KEY")])
    assert line.endswith("…")


def test_a_mark_that_is_wider_than_the_line_ends_with_it() -> None:
    lines = drawn("KEY" * 400, 1, 1, 1200)
    assert all(display_width(line) <= LINE_WIDTH + 4 for line in lines)


def test_two_places_are_both_marked_in_the_order_of_the_file() -> None:
    text = "one: 1\ntwo: 2\nthree: 3\nfour: 4\nfive: 5\n"
    lines = drawn(text, 5, 1, 4, also=(((2, 1), "first here"),))
    assert [line[:3].rstrip() for line in lines] == ["  |", "1 |", "2 |", "  |", "...", "4 |", "5 |", "  |", "  |"]
    assert lines[3] == "  | - first here"
    assert lines[7] == "  | ^^^^"


def test_a_place_in_another_file_is_shown_under_its_name() -> None:
    here, there = Text("url: 1\n"), Text("host: 1\n")
    problem = Problem(
        "given-twice",
        "twice",
        Location("config/a.yaml", 1, 1, width=3, text=here),
        also=((Location("config/default.yaml", 1, 1, width=4, text=there), "and here"),),
    )
    text = render(problem)
    assert "  ::: config/default.yaml:1:1" in text
    assert text.index("^^^") < text.index("---- and here")


def test_colour_changes_nothing_but_colour() -> None:
    source = Text("key: 1\n")
    problem = Problem("x", "wrong", Location("a.yaml", 1, 1, width=3, text=source), "key", "do", ("a note",), "here")
    coloured = render(problem, Palette(True))
    assert "\x1b[1;31merror[x]\x1b[0m" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == render(problem)
