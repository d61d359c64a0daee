"""What a mutation run changes, and which tests it then asks."""

import ast
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.mutation.changes import changes
from tests.mutation.equivalent import EQUIVALENT, reason
from tests.mutation.journal import Journal
from tests.mutation.record import Record
from tests.mutation.session import ForkingSession
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


CONSTANTS = """
LIMIT = 3
MORE: int = LIMIT + 1

class Queue:
    most = 5

    def _is_full(self, number, limit=MORE):
        "Docstring."
        LOCAL = 7
        return number > limit or number > self.most

def other():
    return LOCAL
"""


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (": 3 → 4", {2, 3, 8, 9, 10, 11}),
        (": 1 → 2", {3, 8, 9, 10, 11}),
        ("Queue: 5 → 6", {6, 11}),
        ("Queue._is_full: 7 → 8", {10}),
        ("other: return LOCAL → return None", {14}),
    ],
)
def test_a_constant_is_tested_by_what_reads_it(name: str, lines: set[int]) -> None:
    (change,) = [change for change in changes("a.py", CONSTANTS) if change.name == name]
    assert set(change.lines) == lines


def test_a_constant_has_the_names_of_those_that_are_made_of_it() -> None:
    source = "ROW = 1\nROWS = [ROW]\nTABLE = {2: ROWS}\nOTHER = 3\ndef use():\n    return ROW\n"
    found = {change.old: set(change.constant) for change in changes("a.py", source)}
    assert found == {"1": {"ROW", "ROWS", "TABLE"}, "2": {"TABLE"}, "3": {"OTHER"}, "return ROW": set()}


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
    """A workshop whose runs end as specified."""

    def __init__(self, folder: Path, *results: Result) -> None:
        super().__init__(folder, {})
        self.results = list(results)
        self.asked: list[tuple[list[str], list[str]]] = []

    def run(self, tests: Sequence[str], without: Iterable[str] = ()) -> Result:
        self.asked.append((list(tests), list(without)))
        return self.results.pop(0)

    _run_anew = run


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


@pytest.mark.parametrize(
    ("results", "outcome"),
    [
        (["error 3", "error 3", "survived"], "ends the run"),
        (["error 3", "error 3", "error 3"], "error 3"),  # without the change too
        (["error 3", "survived"], "error 3"),
    ],
)
def test_an_error_of_the_run_is_a_kill_if_the_change_is_to_blame(
    tmp_path: Path, results: list[str], outcome: str
) -> None:
    (tmp_path / "module.py").write_text("a = 1\n")
    (change,) = changes("module.py", "a = 1\n")
    workshop = Scripted(tmp_path, *map(Result, results))
    assert workshop.attempt(change, ["one"], Reliability()) == Result(outcome)
    assert not workshop.results


def test_a_run_in_a_process_of_its_own_is_asked_for_any_number_of_tests(tmp_path: Path) -> None:
    """A constant that everything uses has thousands: more than fits into a variable of the environment."""
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    (tmp_path / "test_one.py").write_text("def test_it(): assert 1\ndef test_other(): assert 0\n")
    many = [f"test_one.py::test_{'long' * 50}_{number}" for number in range(1000)]
    assert Workshop(tmp_path, {}).run([*many, "test_one.py::test_it"]) == SURVIVED


def test_a_run_in_a_process_of_its_own_says_which_test_has_failed(tmp_path: Path) -> None:
    (tmp_path / "tests").symlink_to(ROOT / "tests")  # its plugin
    (tmp_path / "test_one.py").write_text("def test_it(): assert 1\n")
    (tmp_path / "test_two.py").write_text("def test_it(): assert 0\ndef test_other(): assert 1\n")
    workshop = Workshop(tmp_path, {})
    assert workshop.run(["test_one.py"]) == SURVIVED
    assert workshop.run(["test_one.py", "test_two.py"]) == Result("killed", "test_two.py::test_it")
    assert workshop.run(["test_two.py::test_other"]) == SURVIVED
    assert workshop.run(["test_two.py::test_gone"]) == Result("not executed")


COUNTED = """
from functools import cache, wraps

LIMIT = 3

def logged(function):
    @wraps(function)
    def inner(*arguments):
        return function(*arguments) + 0
    return inner

@logged
def double(number):
    return number * 2

def first():
    return 1 + 0

ONE = first()

class Counter:
    step = 1

    @property
    def next(self):
        return [step + 1 for step in [self.step]][0]

def numbers():
    return (yield 1)

@cache
def cached():
    return 5 + 0

def waits(number):
    while number < 3:
        number += 1
    return number
"""
COUNTING = """
import subprocess, sys
import counted

def test_double():
    assert counted.double(2) == 4

def test_next():
    assert counted.Counter().next == 2

def test_numbers():
    assert list(counted.numbers()) == [1]

def test_cached():
    assert counted.cached() == counted.cached() == 5

def test_waits():
    assert counted.waits(0) == 3

def test_a_process_of_its_own():
    assert subprocess.run([sys.executable, "-c", "import counted; assert counted.double(2) == 4"]).returncode == 0
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkingSession]:
    folder = tmp_path_factory.mktemp("counting")
    (folder / "counted.py").write_text(COUNTED)
    (folder / "test_counting.py").write_text(COUNTING)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -p no:randomly\n")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    environ["PYTHONDONTWRITEBYTECODE"] = "1"  # where a file changes within a second, Python would take the old one
    with closing(ForkingSession(folder, environ, [])) as session:
        session.wait()
        yield session


def forked(
    session: ForkingSession, name: str, tests: Sequence[str] = ("test_counting.py",), limit: float = 60.0
) -> tuple[int | str | None, str]:
    """Return how tests end with a change, with none if it has no name, and which one noticed it."""
    path = session.folder / "counted.py"
    made = [change for change in changes("counted.py", COUNTED) if change.name == name]
    assert len(made) == (name != "")
    for change in made:
        path.write_bytes(change.apply(COUNTED.encode()))
    try:
        code, events = session.run((made[0], COUNTED) if made else None, tests, [], {}, limit)
    finally:
        path.write_text(COUNTED)
    return code, ", ".join(test.partition("::")[2] for what, test in events if what == "failed")


@pytest.mark.parametrize(
    ("name", "code", "noticed"),
    [
        ("", 0, ""),
        ("double: number * 2 → (number / 2)", 1, "test_double"),
        ("logged.inner: return function(*arguments) + 0 → return None", 1, "test_double"),
        ("Counter.next: step + 1 → (step - 1)", 1, "test_next"),
        ("Counter.next: return [step + 1 for step in [self.step]][0] → return None", 1, "test_next"),
        ("numbers: return (yield 1) → return None", 1, "test_numbers"),  # it becomes another kind of function
        ("cached: 5 → 6", 1, "test_cached"),
        ("cached: 5 + 0 → (5 - 0)", 0, ""),
        ("logged: return inner → return None", "declined", ""),  # called when the module was imported
        ("first: 1 → 2", "declined", ""),
        (": 3 → 4", "declined", ""),
        ("Counter: 1 → 2", "declined", ""),
    ],
)
def test_a_change_is_made_in_a_forked_child_unless_it_needs_an_import(
    session: ForkingSession, name: str, code: int | str, noticed: str
) -> None:
    assert forked(session, name) == (code, noticed)


def test_a_change_ends_with_the_child(session: ForkingSession) -> None:
    assert forked(session, "double: number * 2 → (number / 2)")[0] == 1
    assert forked(session, "") == (0, "")


def test_a_process_that_a_test_starts_imports_the_change(session: ForkingSession) -> None:
    tests = ["test_counting.py::test_a_process_of_its_own"]
    assert forked(session, "double: number * 2 → (number / 2)", tests) == (1, "test_a_process_of_its_own")


def test_tests_run_in_the_order_in_which_they_are_asked_for(session: ForkingSession) -> None:
    tests = ["test_counting.py::test_waits", "test_counting.py::test_double", "test_counting.py::test_gone"]
    assert session.run(None, tests, [], {}, 60.0) == (0, [["began", test] for test in tests[:2]])
    assert session.run(None, tests, tests[:1], {}, 60.0) == (0, [["began", tests[1]]])
    assert session.run(None, tests, tests[:2], {}, 60.0) == (5, [])


def test_a_test_that_takes_longer_than_its_limit_hangs(session: ForkingSession) -> None:
    assert forked(session, "waits: number += 1 → pass", limit=2.0) == (None, "")
    assert forked(session, "") == (0, "")


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
    content = {"tests": list(seconds.items()), "lines": lines, "digests": digests, "sources": {"module.py": "a = 1\n"}}
    (tmp_path / ".mutants/record.json").write_text(json.dumps(content))
    return tmp_path


def recorded(project: Path) -> Any:
    record = Record(project)
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


def test_what_reads_a_constant_itself_comes_first(project: Path) -> None:
    """A table that a test compares whole: no line of the module is executed for that."""
    (project / "test_two.py").write_text("from module import a\n")
    record = project / ".mutants/record.json"
    content = json.loads(record.read_text())
    content["lines"]["module.py"] = {"1": [1]}
    content["digests"]["test_two.py"] = hashlib.sha256((project / "test_two.py").read_bytes()).hexdigest()
    record.write_text(json.dumps(content))
    assert chosen(project, "a = 1") == ["test_two.py::other", "test_one.py::quick"]  # and not the long one
    assert chosen(project, "ab = 1") == ["test_one.py::quick"]


def test_what_reads_a_constant_in_another_module_is_asked_too(project: Path) -> None:
    (project / "reader.py").write_text("def read(each):\n    return each.known\n")
    record = project / ".mutants/record.json"
    content = json.loads(record.read_text())
    content["lines"] = {"module.py": {"1": [], "3": [1]}, "reader.py": {"1": [], "2": [2]}}
    content["sources"]["reader.py"] = (project / "reader.py").read_text()
    record.write_text(json.dumps(content))
    assert chosen(project, "class A:\n    known = True") == ["test_two.py::other", "test_one.py::quick"]
    assert chosen(project, "class A:\n    other = True") == ["test_one.py::quick"]


def test_of_a_file_of_tests_that_has_changed_all_are_run(project: Path) -> None:
    (project / "test_two.py").write_text("changed = 1\n")
    assert chosen(project, "\na = 1") == ["test_two.py"]


def test_a_module_that_has_changed_is_told(project: Path) -> None:
    (project / "module.py").write_text("changed = 1\n")
    record = recorded(project)
    assert record.stale(["module.py", "test_one.py"]) == ["module.py"]


def test_the_lines_of_a_module_that_has_changed_keep_their_tests(project: Path) -> None:
    record = project / ".mutants/record.json"
    content = json.loads(record.read_text())
    content["lines"]["module.py"] = {"1": [0], "2": [1], "3": [2]}
    content["sources"]["module.py"] = "a = 1\nb = 2\nc = 3\n"
    record.write_text(json.dumps(content))
    (project / "module.py").write_text("new = 0\na = 1\nb = 4\nmore = 5\nc = 3\nlast = 6\n")
    found = [recorded(project).tests(change) for change in changes("module.py", (project / "module.py").read_text())]
    slow, quick, other = "test_one.py::slow", "test_one.py::quick", "test_two.py::other"
    assert found[1:] == [[slow], [quick], [quick], [other], [other]]
    assert found[0] == [quick, other, slow]  # nothing stands before it: those of the whole module


PROBED = '''"""A module of which it is noted what is executed."""

from __future__ import annotations

import os
import threading


class Chooser:
    """It chooses."""

    def choose(self, number: int) -> str:
        """Choose."""
        if number == 1:
            return "one"
        elif number == 2:
            return "two"
        try:
            return {3: "three"}[number]
        except KeyError:
            match number:
                case 4:
                    return "four"
        return "many"


def in_a_thread() -> None:
    thread = threading.Thread(target=Chooser().choose, args=(1,))
    thread.start()
    thread.join()


def in_a_child() -> None:
    if (child := os.fork()) == 0:
        Chooser().choose(2)
        os._exit(0)
    os.waitpid(child, 0)
'''
PROBING = """
import inspect
import os
import subprocess
import sys
import pytest
from probed import module

@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_choose(number):
    assert module.Chooser().choose(number) == ["one", "two", "three", "four", "many"][number - 1]

def test_a_thread():
    module.in_a_thread()

def test_a_child():
    module.in_a_child()

def test_a_program():
    subprocess.run([sys.executable, "-c", "from probed import module; module.Chooser().choose(4)"], check=True)

def test_what_can_be_read_stays():
    assert module.__doc__ == "A module of which it is noted what is executed."
    assert module.Chooser.choose.__doc__ == "Choose."
    assert "hits" not in inspect.getsource(module)
    assert inspect.getsource(module.in_a_child).startswith("def in_a_child")

def test_that_fails():
    assert module.Chooser().choose(1) == "two"
"""


FORKING = """
import pytest
from tests.support.workers import fork_workers

pytest.register_assert_rewrite("probed")  # as that of a plugin is: without the probes, but for --assert=plain

def pytest_xdist_setupnodes(config, specs):
    fork_workers(config, len(specs))
"""


@pytest.mark.parametrize(("workers", "conftest"), [(0, ""), (1, ""), (2, FORKING)], ids=["none", "one", "forked"])
def test_it_is_recorded_which_tests_execute_which_statement(tmp_path: Path, workers: int, conftest: str) -> None:
    shutil.copytree(ROOT / "tests/support", tmp_path / "tests/support")
    for name, content in {
        "probed/__init__.py": "",
        "probed/module.py": PROBED,
        "test_probing.py": PROBING,
        "conftest.py": conftest,
        "tests/mutation/__init__.py": "",
        "tests/mutation/plugin.py": (ROOT / "tests/mutation/plugin.py").read_text(),
        "tests/mutation/probes.py": (ROOT / "tests/mutation/probes.py").read_text(),
        "pytest.ini": "[pytest]\naddopts = --import-mode=importlib -p no:randomly\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    record = Record(tmp_path / "project", package="probed")
    (tmp_path / "project").mkdir()
    record.take(tmp_path, workers)
    lines = {
        number: {test.partition("::")[2].removeprefix("test_") for test in tests}
        for number, tests in record.lines("probed/module.py").items()
    }
    chosen = {number: f"choose[{number}]" for number in range(1, 6)}
    at = {line.strip(): number for number, line in enumerate(PROBED.splitlines(), 1)}
    every = {*chosen.values(), "a_thread", "a_child", "a_program"}
    assert lines[at["if number == 1:"]] == every
    assert lines[at['return "one"']] == {chosen[1], "a_thread"}
    assert lines[at["elif number == 2:"]] == every - {chosen[1], "a_thread"}
    assert lines[at['return "two"']] == {chosen[2], "a_child"}
    assert lines[at['return {3: "three"}[number]']] == {chosen[3], chosen[4], chosen[5], "a_program"}
    assert lines[at["match number:"]] == {chosen[4], chosen[5], "a_program"}
    assert lines[at['return "four"']] == {chosen[4], "a_program"}
    assert lines[at['return "many"']] == {chosen[5]}
    assert lines[at["thread.join()"]] == {"a_thread"}
    assert lines[at["class Chooser:"]] <= {"a_program"}  # no test imports it: that happens when they are collected


def test_a_run_that_was_interrupted_continues_and_what_survived_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a = 1 + 2\n")
    (tmp_path / "b.py").write_text("b = 1\n")
    first, *others = changes("a.py", "a = 1 + 2\n")
    (second,) = changes("b.py", "b = 1\n")
    path = tmp_path / ".mutants/tried.jsonl"
    journal = Journal(path, tmp_path, {"seed": 5})
    journal.add(first, KILLED)
    journal.add(second, SURVIVED)
    with path.open("a") as file:
        file.write('["a.py", "')  # the machine stopped here
    (tmp_path / "b.py").write_text("b = 1  # changed since\n")
    journal = Journal(path, tmp_path, {"seed": 5}, continues=True)
    assert journal.result(first) == KILLED
    assert [journal.result(change) for change in (second, *others)] == [None] * 3
    journal.add(others[0], SURVIVED)
    journal = Journal(path, tmp_path, {"seed": 5}, continues=True)
    assert [journal.result(change) for change in (first, *others)] == [KILLED, SURVIVED, None]
    journal = Journal(path, tmp_path, {"seed": 5}, again=True)
    assert [journal.result(change) for change in (first, *others)] == [KILLED, None, None]
    with pytest.raises(SystemExit, match="other arguments"):
        Journal(path, tmp_path, {"seed": 6}, continues=True)
    assert Journal(path, tmp_path, {"seed": 6}).result(first) is None
    with pytest.raises(SystemExit, match="no run to continue"):
        Journal(tmp_path / "none.jsonl", tmp_path, {"seed": 6}, continues=True)
