"""A problem, its location, and its rendering with the source line and a caret."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, Protocol

from dbconfig.errors.late_pattern import late_pattern
from dbconfig.errors.light_dataclass import StandardFields, dataclass, field
from dbconfig.errors.printable import PLAIN, Palette, display_width, harmless, printable


class SourceText(Protocol):
    """The text to which a location refers."""

    def excerpt(self, line: int) -> str:
        """Return the line without the values that may not be shown."""

    def column(self, line: int, column: int) -> int:
        """Return the position of a column of the line in its excerpt."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where a value was written: a position in a file, or an environment variable.

    Lines and columns count from 1. `str()` is the readable form: ``config/production.yaml:4:1``.
    """

    source: str
    line: int | None = None
    column: int | None = None
    variable: str = ""
    width: int = field(default=1, compare=False, repr=False)
    text: SourceText | None = field(default=None, compare=False, repr=False)

    __dataclass_fields__ = StandardFields()

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.source, self.line, self.column) if part is not None)
        return f"{self.variable}, {place}" if self.variable else place

    @property
    def position(self) -> tuple[str, int, int, str]:
        return (self.source, self.line or 0, self.column or 0, self.variable)


BUILT_IN = Location("default")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a configuration.

    Attributes:
        slug: stable name of the kind of problem, an entry of the catalogue.
        message: what is wrong, in one line.
        location: where it is, if it has a position.
        key: the dotted path of the key.
        help: what to do about it.
        notes: further facts: where a value came from, what exists.
        label: words beside the caret.
        also: related places, each with a label: the first of two keys, the URL that contradicts it.
        severity: a warning does not reject the profile.
    """

    slug: str
    message: str
    location: Location | None = None
    key: str = ""
    help: str = ""
    notes: tuple[str, ...] = ()
    label: str = ""
    also: tuple[tuple[Location, str], ...] = ()
    severity: Literal["error", "warning"] = "error"

    __dataclass_fields__ = StandardFields()

    def __str__(self) -> str:
        return render(self)


def position_of(problem: Problem) -> tuple[str, int, int, str]:
    return problem.location.position if problem.location is not None else ("", 0, 0, "")


LINE_WIDTH: Final = 100  # cells of a source line; a longer one is cut around its mark


_TAB: Final = "    "
_COMMAND: Final = late_pattern(r"##(?=\[|vso\[)")  # which CI systems execute in the middle of a line, too


def render(problem: Problem, paint: Palette = PLAIN) -> str:
    """Return the problem as text, colored if the palette is."""
    location = problem.location
    marks = [(location, problem.label, "^"), *((place, label, "-") for place, label in problem.also)]
    lines_ = [place.line for place, _, _ in marks if place is not None and place.line]
    gutter = len(str(max(lines_, default=1)))
    head = paint(problem.severity, f"{problem.severity}[{problem.slug}]")
    lines = [head + paint("bold", f": {harmless(problem.message)}")]
    key = f"  ({harmless(printable(problem.key))})" if problem.key else ""
    arrow = paint("frame", f"{' ' * gutter} -->")
    if location is not None:
        lines += [f"{arrow} {harmless(str(location))}{key}", *_excerpts(marks, gutter, paint, problem.severity)]
    elif problem.key:
        lines.append(f"{arrow} {harmless(printable(problem.key))}")
    sign = paint("frame", f"{' ' * gutter} =")
    lines += [f"{sign} {paint('bold', 'note')}: {harmless(note)}" for note in problem.notes]
    if problem.help:
        lines.append(f"{sign} {paint('help', 'help')}: {harmless(problem.help)}")
    return "\n".join(lines)


_Mark = tuple["Location | None", str, str]


def _excerpts(marks: Sequence[_Mark], gutter: int, paint: Palette, severity: str) -> list[str]:
    """Return the source lines of all marks, those of the problem's own file first."""
    empty = paint("frame", f"{' ' * gutter} |")
    found: list[str] = []
    for source in dict.fromkeys(place.source for place, _, _ in marks if place is not None and place.text is not None):
        here = [mark for mark in marks if mark[0] is not None and mark[0].source == source]
        shown = [mark for mark in here if mark[0] is not None and mark[0].line and mark[0].column]
        if not shown:
            continue
        if found:
            found.append(f"{paint('frame', ' ' * gutter + ' :::')} {harmless(str(here[0][0]))}")
        found += [empty, *_excerpt(shown, gutter, paint, severity), empty]
    return found


def _excerpt(marks: Sequence[_Mark], gutter: int, paint: Palette, severity: str) -> Iterable[str]:
    by_line: dict[int, list[_Mark]] = {}
    for mark in marks:
        by_line.setdefault(mark[0].line or 0 if mark[0] is not None else 0, []).append(mark)
    source = marks[0][0].text if marks[0][0] is not None else None
    if source is None:
        return
    wanted = sorted({number for line in by_line for number in (line - 1, line) if number > 0})
    last = 0
    for number in wanted:
        text = source.excerpt(number)
        if not text.strip() and number not in by_line:
            continue
        if last and number > last + 1:
            yield paint("frame", f"{'.' * max(gutter, 3)}")
        last = number
        yield from _line(number, text, by_line.get(number, []), gutter, paint, severity)


def _line(number: int, text: str, marks: Sequence[_Mark], gutter: int, paint: Palette, severity: str) -> Iterable[str]:
    cells = [_TAB if ch == "\t" else printable(ch) for ch in text.rstrip()]
    for found in _COMMAND.finditer("".join(cell if len(cell) == 1 else " " for cell in cells)):
        cells[found.start() + 1] = "\\x23"  # each cell stays one, since the marks are below
    placed = []
    for place, label, sign in sorted(marks, key=lambda mark: (mark[0].column or 0) if mark[0] is not None else 0):
        if place is None or place.text is None or place.column is None:
            continue
        first = place.text.column(number, place.column) - 1
        last = max(place.text.column(number, place.column + place.width) - 1, first + 1)
        placed.append((first, last, harmless(label), sign))
    start = min((first for first, *_ in placed), default=0)
    begin, end = _window(cells, start)
    shown = ("…" if begin else "") + "".join(cells[begin:end]) + ("…" if end < len(cells) else "")
    bar = paint("frame", f"{number:>{gutter}} |")
    yield f"{bar} {shown}".rstrip()
    for first, last, label, sign in placed:
        indent = display_width("…" if begin else "") + display_width("".join(cells[begin:first]))
        width = display_width("".join(cells[first : min(last, end)])) or 1
        kind = severity if sign == "^" else "frame"
        blank = paint("frame", f"{' ' * gutter} |")
        yield f"{blank} {' ' * indent}{paint(kind, f'{sign * width} {label}'.rstrip())}"


def _window(cells: Sequence[str], mark: int) -> tuple[int, int]:
    """Return which cells of a line to show: all, or as many as fit, with a third of them before the mark."""
    if display_width("".join(cells)) <= LINE_WIDTH:
        return 0, len(cells)
    begin = mark
    before = display_width("".join(cells[:mark]))
    if before <= LINE_WIDTH * 2 // 3:
        begin = 0
    else:
        while begin > 0 and display_width("".join(cells[begin:mark])) < LINE_WIDTH // 3:
            begin -= 1
    end, used = begin, 0
    while end < len(cells) and used + display_width(cells[end]) <= LINE_WIDTH - 2:
        used += display_width(cells[end])
        end += 1
    return begin, end
