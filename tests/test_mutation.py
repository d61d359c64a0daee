"""What a mutation run changes, and which tests it then asks."""

import ast
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.mutation.changes import changes
from tests.mutation.equivalent import EQUIVALENT, reason
from tests.mutation.workshop import Reliability, Result, Workshop, result

ROOT = Path(__file__).parents[1]


def changed(source: str) -> list[str]:
    return [change.apply(source.encode()).decode() for change in changes("a.py", source)]


@pytest.mark.parametrize(
    ("source", "results"),
    [
        ("a < b", ["(a <= b)"]),
        ("a is not b", ["(a is b)"]),
        ("a or b", ["(a and b)"]),
        ("not a", ["(a)"]),
        ("a = 3", ["a = 4"]),
        ("a = True", ["a = False"]),
        ("a = b if c else d", ["a = (d if c else b)"]),
        ("a += b", ["pass"]),
        ("a()", ["pass"]),
        ("raise a", ["pass"]),
        ("for a in b:\n    break", ["for a in b:\n    continue"]),
        ("def a():\n    return b", ["def a():\n    return None"]),
        ("def a():\n    return None", []),
        ("a: int | None", []),
        ("a = f'{b + 1}'", []),
        ("if TYPE_CHECKING:\n    a()", []),
        ("é = ö < 1", ["é = (ö <= 1)", "é = ö < 2"]),
        ("a = (b <\n     c)", ["a = ((b <= c))"]),
    ],
)
def test_a_change_is_one_place(source: str, results: list[str]) -> None:
    assert changed(source) == results


def test_a_change_is_shown_on_one_line() -> None:
    (change,) = changes("folder/a.py", "x\na = (b <\n     c)")
    assert str(change) == "folder/a.py:2 b < c → (b <= c) in the module"
    assert set(change.lines) == {2, 3}


def test_a_change_has_a_name_that_does_not_depend_on_its_line() -> None:
    source = "class A:\n    def b(self):\n        return 1 + 1\n"
    names = [change.name for change in changes("a.py", source)]
    assert names == ["A.b: return 1 + 1 → return None", "A.b: 1 + 1 → (1 - 1)", "A.b: 1 → 2", "A.b: 1 → 2 #2"]
    assert [change.name for change in changes("a.py", "\n" + source)] == names


@pytest.mark.parametrize("path", EQUIVALENT)
def test_what_makes_no_difference_is_a_change_and_has_a_reason(path: str) -> None:
    names = {change.name for change in changes(path, (ROOT / path).read_text(encoding="utf-8"))}
    assert EQUIVALENT[path].keys() - names == set()
    assert all(len(reason) > 10 for reason in EQUIVALENT[path].values())


def test_only_logs_for_debugging_make_no_difference_anywhere() -> None:
    source = "logger.debug(1)\n_log.info(1)\nlogger.warning(1)\n_log.debug(1)\n"
    assert [change.old for change in changes("a.py", source) if reason(change)] == ["logger.debug(1)", "_log.debug(1)"]


@pytest.mark.parametrize(
    ("code", "events", "outcome"),
    [
        (0, [["began", "a"]], Result("survived")),
        (1, [["began", "a"], ["began", "b"], ["failed", "b"]], Result("killed", "b")),
        (1, [["began", "a"], ["began", "b"]], Result("hangs", "b")),  # ended by faulthandler
        (None, [["began", "a"]], Result("hangs", "a")),
        (1, [], Result("error 1")),
        (2, [["began", "a"], ["failed", "a"]], Result("error 2")),
        (3, [], Result("error 3")),
        (4, [], Result("error 4")),
        (5, [], Result("not executed")),
        (-11, [["began", "a"]], Result("error -11")),
    ],
)
def test_only_a_test_that_fails_or_hangs_notices(code: int | None, events: list[list[str]], outcome: Result) -> None:
    assert result(code, events) == outcome


class Scripted(Workshop):
    """One in which runs end as they are told to."""

    def __init__(self, folder: Path, *results: Result) -> None:
        self.folder = folder
        self.results = list(results)
        self.asked: list[tuple[list[str], list[str]]] = []

    def run(self, tests: Sequence[str], without: Iterable[str] = ()) -> Result:
        self.asked.append((list(tests), list(without)))
        return self.results.pop(0)


KILLED, SURVIVED = Result("killed", "one"), Result("survived")


@pytest.mark.parametrize(
    ("results", "outcome", "unreliable"),
    [
        ([SURVIVED], SURVIVED, []),
        ([KILLED, KILLED, SURVIVED], KILLED, []),
        ([KILLED, SURVIVED, SURVIVED], SURVIVED, ["one"]),  # it did not fail again
        ([KILLED, KILLED, KILLED, SURVIVED], SURVIVED, ["one"]),  # it fails without the change too
        (
            [KILLED, SURVIVED, Result("killed", "two"), Result("killed", "two"), SURVIVED],
            Result("killed", "two"),
            ["one"],
        ),
        ([Result("error 4")], Result("cannot be imported"), []),
    ],
)
def test_a_test_that_fails_by_chance_notices_nothing(
    tmp_path: Path, results: list[Result], outcome: Result, unreliable: list[str]
) -> None:
    (tmp_path / "module.py").write_text("assert 1\n")
    (change,) = changes("module.py", "assert 1\n")
    change = replace(change, new="0")
    workshop, known = Scripted(tmp_path, *results), Reliability()
    assert workshop.attempt(change, ["one", "two"], known) == outcome
    assert known.unreliable == unreliable
    assert workshop.asked[-1][1] in ([], unreliable)
    assert (tmp_path / "module.py").read_text() == "assert 1\n"


def test_an_error_of_the_run_is_no_kill(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("a = 1\n")
    (change,) = changes("module.py", "a = 1\n")
    assert Scripted(tmp_path, Result("error 2")).attempt(change, ["one"], Reliability()) == Result("error 2")


@pytest.mark.parametrize("path", sorted((ROOT / "dbconfig/errors").glob("*.py")), ids=lambda path: path.name)
def test_every_change_is_still_python(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    for change in changes(path.name, source):
        ast.parse(change.apply(source.encode()))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("module.py", "test_one.py", "test_two.py"):
        (tmp_path / name).write_text("a = 1\n")
    seconds = {
        "test_one.py::slow": 5.0,
        "test_one.py::quick": 0.1,
        "test_two.py::other": 1.0,
        "test_two.py::long": 90.0,
    }
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.glob("*.py")}
    lines = {"module.py": {"1": [0, 1, 2, 3], "2": [2]}}
    (tmp_path / ".mutants").mkdir()
    content = {"tests": list(seconds.items()), "lines": lines, "digests": digests}
    (tmp_path / ".mutants/record.json").write_text(json.dumps(content))
    return tmp_path


def recorded(project: Path) -> Any:
    pytest.importorskip("coverage")  # which only development has
    record = import_module("tests.mutation.record").Record(project)
    assert record.read()
    return record


def chosen(project: Path, source: str) -> list[str]:
    record = recorded(project)
    return record.tests(next(changes("module.py", source)))


def test_each_file_has_its_turn_and_the_budget_is_kept(project: Path) -> None:
    assert chosen(project, "a = 1") == ["test_one.py::quick", "test_two.py::other", "test_one.py::slow"]


def test_the_rarest_way_through_the_module_comes_first(project: Path) -> None:
    record = project / ".mutants/record.json"
    content = json.loads(record.read_text())
    content["lines"]["module.py"] = {"1": [0, 1, 2, 3], "2": [1, 2], "3": [0]}
    content["tests"][0] = ["test_one.py::slow", 59.5]
    record.write_text(json.dumps(content))
    assert chosen(project, "a = 1") == ["test_one.py::quick", "test_one.py::slow"]  # no time is left for the other


def test_a_line_that_no_test_runs_has_the_tests_of_its_module(project: Path) -> None:
    assert chosen(project, "\n\n\na = 1") == chosen(project, "a = 1")


def test_of_a_file_of_tests_that_has_changed_all_are_run(project: Path) -> None:
    (project / "test_two.py").write_text("changed = 1\n")
    assert chosen(project, "\na = 1") == ["test_two.py"]


def test_a_module_that_has_changed_is_told(project: Path) -> None:
    (project / "module.py").write_text("changed = 1\n")
    record = recorded(project)
    assert record.stale(["module.py", "test_one.py"]) == ["module.py"]
