"""Which tests run which line: recorded once, with probes, and kept in .mutants/."""

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path

from tests.mutation import probes
from tests.mutation.changes import Change, uses

_TESTS_OF_A_LINE = 600  # a line of the checkout path has thousands, of which the others notice no more
_READERS = 8  # other modules whose tests are asked about a constant
_GRACE, _SLOWER = 15.0, 5.0  # a test hangs after 15 s and five times what it took when it was recorded
BUDGET = 60.0  # seconds of the tests of one change, as long as they took when they were recorded


class Record:
    """The tests of each line, and how long each test takes.

    Args:
        root: of the project.
        budget: seconds for the tests of one change.
        package: of which the lines are.
    """

    def __init__(self, root: Path, budget: float = BUDGET, package: str = "dbconfig") -> None:
        self._root, self._budget, self._package = root, budget, package
        self._folder = root / ".mutants"
        self._lines: dict[str, dict[int, set[str]]] = {}
        self._seconds: dict[str, float] = {}
        self._digests: dict[str, str] = {}
        self._read: dict[str, Mapping[str, set[int]]] = {}  # which lines of a module read which name
        self._sources: dict[str, str] = {}  # of the modules, as they were when their lines were recorded

    def take(self, copy: Path, workers: int, tests: Sequence[str] = ()) -> None:
        """Run the tests in a copy of the project; those that fail there are of no use.

        Of some tests what is recorded is added to what is known of the others.
        """
        self._folder.mkdir(exist_ok=True)
        shutil.rmtree(hits := copy / ".hits", ignore_errors=True)
        places = probes.plant(copy, self._package, hits)
        # pytest would compile the package itself, as it does with what has plugins for it, if it rewrote assertions. A
        # worker that faulthandler ends would not be replaced.
        options = ["-p", "tests.mutation.plugin", "--assert=plain", "-o", "faulthandler_timeout=0"]
        options += ["-n", str(workers), "--dist", "worksteal"]
        environ = {**os.environ, "PYTHONPATH": str(copy), probes.FOLDER: str(hits)}
        begun = bool(tests) and self.read(copy)
        try:
            done = subprocess.run([sys.executable, "-m", "pytest", "-q", *options, *tests], cwd=copy, env=environ)
            if done.returncode not in (0, 1):
                raise SystemExit(f"the tests could not be run: pytest ended with {done.returncode}")
        finally:  # after an interruption, what it has seen; the rest may be recorded by its names
            if not begun:
                self._lines, self._seconds, self._digests, self._sources = {}, {}, {}, {}
            self._add(list(probes.noted(hits)), places, copy)
            self._write()

    def _add(
        self, executed: Sequence[tuple[str, float, Sequence[int]]], places: Sequence[probes.Place], copy: Path
    ) -> None:
        seconds = {test: spent for test, spent, _ in executed}
        for lines in self._lines.values():
            for line in lines:
                lines[line] -= seconds.keys()
        self._seconds |= seconds
        for name, line in places:
            self._lines.setdefault(name, {}).setdefault(line, set())
        for test, _, numbers in executed:
            for name, line in (places[number] for number in numbers):
                self._lines[name][line].add(test)
        files = {*self._lines, *(test.partition("::")[0] for test in seconds)}
        self._digests |= {name: _digest(copy / name) for name in files}
        self._sources |= {name: (copy / name).read_text(encoding="utf-8") for name in self._lines}

    def _write(self) -> None:
        numbers = {test: number for number, test in enumerate(self._seconds)}
        lines = {
            name: {line: sorted(numbers[test] for test in tests) for line, tests in found.items()}
            for name, found in self._lines.items()
        }
        content = {
            "tests": list(self._seconds.items()),
            "lines": lines,
            "digests": self._digests,
            "sources": self._sources,
        }
        (self._folder / "record.json").write_text(json.dumps(content))

    def read(self, root: Path | None = None) -> bool:
        """Read what was recorded, and find its lines in the modules as they are now; return whether there is anything.

        Args:
            root: where the modules are; the project's own by default.
        """
        path = self._folder / "record.json"
        if not path.exists():
            return False
        content = json.loads(path.read_text())
        tests = [test for test, _ in content["tests"]]
        self._seconds = dict(content["tests"])
        self._digests = content["digests"]
        self._lines = {
            name: {int(line): {tests[number] for number in numbers} for line, numbers in lines.items()}
            for name, lines in content["lines"].items()
        }
        self._sources = content["sources"]
        for name, lines in self._lines.items():
            path = (root or self._root) / name
            source = path.read_text(encoding="utf-8") if path.exists() else ""
            if source != self._sources[name]:
                self._lines[name] = _moved(lines, self._sources[name], source)
                self._sources[name] = source
        return True

    def lines(self, name: str) -> Mapping[int, set[str]]:
        """Return the tests of each line of a module on which a statement begins."""
        return self._lines.get(name, {})

    def files(self) -> list[str]:
        """Return the files of the tests that were recorded: the others need not be collected."""
        files = dict.fromkeys(test.partition("::")[0] for test in self._seconds)
        return [name for name in files if (self._root / name).exists()]

    def limits(self) -> dict[str, float]:
        """Return the seconds after which each test hangs, on a busy machine too."""
        return {test: _GRACE + _SLOWER * seconds for test, seconds in self._seconds.items()}

    def stale(self, names: Iterable[str]) -> list[str]:
        """Return those of these files that have changed since."""
        known = ((name, self._digests[name]) for name in names if name in self._digests)
        return sorted({name for name, digest in known if digest != _digest(self._root / name)})

    def tests(self, change: Change) -> list[str]:
        """Return the tests that may notice a change; a file that has changed since stands for all of its tests."""
        lines = self.lines(change.path)
        found = {test for line in change.lines for test in lines.get(line, ())}
        if not found:  # executed when the module is imported: a constant, a default
            found = {test for tests in lines.values() for test in tests}
        chosen = [*self._that_name(change), *self._that_read(change), *self._spread(found, change.path)]
        stale = set(self.stale(test.partition("::")[0] for test in chosen))
        names = [name if (name := test.partition("::")[0]) in stale else test for test in chosen]
        return [name for name in dict.fromkeys(names) if (self._root / name.partition("::")[0]).exists()]

    def _that_name(self, change: Change) -> list[str]:
        """Return the tests of the files that read a constant themselves, as far as a part of the budget goes."""
        words = [re.compile(rf"\b{name}\b") for name in change.constant]
        module = re.compile(rf"\b{Path(change.path).stem}\b")
        chosen: list[str] = []
        spent = 0.0
        texts = {name: (self._root / name).read_text(encoding="utf-8") for name in self.files()} if words else {}
        naming = {
            name for name, text in texts.items() if module.search(text) and any(word.search(text) for word in words)
        }
        for seconds, test in sorted((seconds, test) for test, seconds in self._seconds.items()):
            if test.partition("::")[0] in naming and (spent := spent + seconds) <= self._budget / 3:
                chosen.append(test)
        return chosen

    def _that_read(self, change: Change) -> list[str]:
        """Return tests of the lines of other modules that read a constant, such as an attribute of a class of ours."""
        readers: list[tuple[str, set[str]]] = []
        for path in self._lines if change.constant else ():
            if path != change.path and (self._root / path).exists():
                lines = self._uses(path)
                numbers = {number for name in change.constant for number in lines.get(name, ())}
                readers.append((path, {test for number in numbers for test in self._lines[path].get(number, ())}))
        # A name that half of the modules use is somebody else's there.
        reading = sorted(((path, tests) for path, tests in readers if tests), key=lambda each: len(each[1]))[:_READERS]
        budget = self._budget / 3 / _READERS
        return [test for path, tests in reading for test in self._spread(tests, path, budget)]

    def _uses(self, path: str) -> Mapping[str, set[int]]:
        if path not in self._read:
            self._read[path] = uses(ast.parse((self._root / path).read_text(encoding="utf-8")))
        return self._read[path]

    def _spread(self, tests: Iterable[str], path: str, budget: float | None = None) -> Sequence[str]:
        """Return one test of each way through the module, then a second one of each, as far as the budget goes.

        The rarest way comes first: what a thousand tests pass by is noticed by the two that are about it. Of one way
        the quickest tests, of several files in turn.
        """
        ways = defaultdict[str, set[int]](set)
        for line, found in self._lines.get(path, {}).items():
            for test in found:
                ways[test].add(line)
        alike = defaultdict[frozenset[int], list[tuple[int, float, str]]](list)
        files = Counter[tuple[frozenset[int], str]]()
        for seconds, test in sorted((self._seconds[test], test) for test in tests):
            way, file = frozenset(ways[test]), test.partition("::")[0]
            alike[way].append((files[way, file], seconds, test))
            files[way, file] += 1
        turns = sorted(
            (turn, len(found), *timed) for found in alike.values() for turn, timed in enumerate(sorted(found))
        )
        chosen: list[str] = []
        spent = 0.0
        for *_, seconds, test in turns[:_TESTS_OF_A_LINE]:
            if not chosen or spent + seconds <= (self._budget if budget is None else budget):
                chosen.append(test)
                spent += seconds
        return sorted(chosen, key=lambda test: self._seconds[test])  # the first that notices ends the run


def _moved(tests: Mapping[int, set[str]], old: str, new: str) -> dict[int, set[str]]:
    """Return the tests of each line of a module that has changed; a new line has those of the lines that it replaces.

    Or, if it replaces none, of the line before it.
    """
    found: dict[int, set[str]] = {}
    for kind, begin, end, first, last in SequenceMatcher(None, old.splitlines(), new.splitlines(), False).get_opcodes():
        before = range(begin + 1, end + 1) if end > begin else range(begin, begin + 1)
        for number in range(first + 1, last + 1):
            lines = (begin + number - first,) if kind == "equal" else before
            found[number] = {test for line in lines for test in tests.get(line, ())}
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
