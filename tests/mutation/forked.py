"""A pytest session that collects everything once, and forks a child for each run of tests.

What a run of a few tests mostly does is importing. Here that is done before, and a change of a function is made in the
child's memory: each function gets the code that the changed file compiles to. That is as good as importing the changed
file if the function has not been called yet, and nothing but functions has changed. Otherwise the session declines.
"""

import ctypes
import gc
import json
import os
import select
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest

from tests.mutation.plugin import names

DECLINED = "declined"
_SET_CHILD_SUBREAPER = 36  # of <linux/prctl.h>
_END = 30.0  # seconds that a child has for the fixtures of its session, such as a server to be stopped
_FUNCTION = 0x1 | 0x2  # CO_OPTIMIZED and CO_NEWLOCALS: not a module, not the body of a class
_ORDERS = "MUTANTS_PIPES"  # the descriptors of two pipes: orders, and what came of them

Place = tuple[str, int]  # of a code object in its file: its qualified name, and which one of that name
_called: set[tuple[str, str, int]] = set()


def _note(frame: FrameType, event: str, argument: object) -> None:
    code = frame.f_code
    _called.add((code.co_filename, code.co_qualname, code.co_firstlineno))


if _ORDERS in os.environ:
    sys.settrace(_note)  # from here on, before dbconfig is imported: calls only, because it returns no tracer of lines


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Carry out orders until there are no more."""
    sys.settrace(None)
    orders, answers = (int(number) for number in os.environ.pop(_ORDERS).split())
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1)  # what a child leaves behind becomes ours, to be ended
    runs = Runs(session.items)
    with os.fdopen(orders) as lines, os.fdopen(answers, "w") as replies:
        print(json.dumps({"ready": len(session.items)}), file=replies, flush=True)
        for line in lines:
            print(json.dumps(runs.run(json.loads(line))), file=replies, flush=True)
    return True


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _teller.tell("failed", report.nodeid)


class _Teller:
    """Tells the parent what happens in a child; silent in the parent itself."""

    def __init__(self) -> None:
        self._child, self._pipe = 0, -1

    def begin(self, pipe: int) -> None:
        self._child, self._pipe = os.getpid(), pipe

    def tell(self, what: str, word: str) -> None:
        if not self._child:
            return
        if os.getpid() != self._child:
            os._exit(1)  # a test has forked, and the error that was to end this process has come here
        os.write(self._pipe, (json.dumps([what, word]) + "\n").encode())


_teller = _Teller()


class Runs:
    """Runs of some of the tests that were collected, each in a child."""

    def __init__(self, items: list[pytest.Item]) -> None:
        self._items = items
        self._named = defaultdict[str, list[pytest.Item]](list)
        for item in items:
            for name in names(item.nodeid):
                self._named[name].append(item)
        gc.unfreeze()  # what was frozen is not listed
        self._functions = defaultdict[str, list[FunctionType]](list)
        for found in gc.get_objects():
            if type(found) is FunctionType:
                self._functions[found.__code__.co_filename].append(found)
        gc.collect()
        gc.freeze()

    def run(self, order: dict[str, Any]) -> dict[str, Any]:
        """Fork a child for an order; return the events that it told, and the exit code of pytest, None if it hung."""
        without = set(order["without"])
        items = [item for name in order["tests"] for item in self._named.get(name, ()) if item.nodeid not in without]
        # What asks for a server comes last: each child starts its own, which takes longer than most tests.
        items = sorted(dict.fromkeys(items), key=lambda item: item.get_closest_marker("server") is not None)
        if not items:
            return {"events": [], "code": 5}
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            self._become(items, order["changed"], writing)
        os.close(writing)
        try:
            return _watched(child, reading, order["limits"], order["limit"])
        finally:
            os.close(reading)
            _end_orphans()

    def _become(self, items: list[pytest.Item], changed: dict[str, str] | None, writing: int) -> None:
        _teller.begin(writing)
        code = 70  # of <sysexits.h>: an error of ours
        try:
            if changed is None or self._changes(**changed):
                code = self._run_here(items)
            else:
                _teller.tell(DECLINED, "")
            _teller.tell("ended", str(code))
        finally:
            os._exit(code)  # whatever the parent registered to be done at its exit is not the child's

    def _run_here(self, items: list[pytest.Item]) -> int:
        failed = items[0].session.testsfailed
        for number, item in enumerate(items):
            _teller.tell("began", item.nodeid)
            following = items[number + 1] if number + 1 < len(items) else None
            try:
                item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            except BaseException:  # it would end the whole run, as Ctrl-C does
                _teller.tell("failed", item.nodeid)
                return 1
            if item.session.testsfailed > failed:
                _teller.tell("ending", item.nodeid)
                with suppress(BaseException):  # it has failed already
                    item.session._setupstate.teardown_exact(None)
                return 1
        return 0

    def _changes(self, path: str, original: str, beside: str) -> bool:
        """Give each function of a file its changed code; return whether that is as good as importing the file.

        Args:
            original: what the file said before.
            beside: the changed file with what was changed where it is never executed.
        """
        if not any(getattr(module, "__file__", None) == path for module in list(sys.modules.values())):
            return True  # it will be imported as it is now
        old, new = (_places(source, path) for source in (original, Path(path).read_text(encoding="utf-8")))
        with suppress(SyntaxError):
            kept = _places(beside, path)
            if all(kept[place].co_flags == code.co_flags for place, code in new.items()):  # or it yields no more
                new = kept
        if not new.keys() <= old.keys():
            return False
        gone = {name for name, _ in old.keys() - new.keys()}  # in the changed function, and then not numbered as before
        for place, code in new.items():
            called = (path, old[place].co_qualname, old[place].co_firstlineno) in _called
            if _own(code) != _own(old[place]) and (called or code.co_flags & _FUNCTION != _FUNCTION):
                return False
        places = defaultdict[tuple[str, int], list[Place]](list)
        for place, code in old.items():
            places[code.co_qualname, code.co_firstlineno].append(place)
        for function in self._functions[path]:
            live = function.__code__
            found = places[live.co_qualname, live.co_firstlineno]
            found = [place for place in found if len(found) == 1 or old[place] == live]
            if len(found) != 1 or found[0][0] in gone or len(new[found[0]].co_freevars) != len(live.co_freevars):
                return False
            function.__code__ = new[found[0]]
        return True


def _places(source: str, path: str) -> dict[Place, CodeType]:
    """Return the code objects of a file."""
    return dict(_codes(compile(source, path, "exec", dont_inherit=True), Counter()))


def _codes(code: CodeType, counts: Counter[str]) -> Iterator[tuple[Place, CodeType]]:
    counts[code.co_qualname] += 1
    yield (code.co_qualname, counts[code.co_qualname]), code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant, counts)


def _own(code: CodeType) -> tuple[object, ...]:
    """Return what a code object does, apart from what the functions do that are defined in it."""
    constants = [(type(each), repr(each)) for each in code.co_consts if not isinstance(each, CodeType)]
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars


def _watched(child: int, reading: int, limits: dict[str, float], limit: float) -> dict[str, Any]:
    """Read what a child tells until it has ended; end it when a test takes longer than its limit."""
    events: list[list[str]] = []
    rest = b""
    deadline = time.monotonic() + limit
    status: int | None = None
    while True:
        ready = select.select([reading], [], [], 0.2)[0]
        text = os.read(reading, 65536) if ready else b""
        *lines, rest = (rest + text).split(b"\n")
        for what, word in map(json.loads, lines):
            if what == DECLINED:
                os.waitpid(child, 0)
                return {"events": [], "code": DECLINED}
            if what in ("began", "failed"):
                events.append([what, word])
            deadline = time.monotonic() + (limits.get(word, limit) if what == "began" else _END)
        if status is not None and not text:  # not at the end of the pipe, which what the child forked may keep open
            return {"events": events, "code": os.waitstatus_to_exitcode(status)}
        if status is None:
            ended, status = os.waitpid(child, os.WNOHANG)
            status = status if ended else None
        if status is None and time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"events": events, "code": 1 if events and events[-1][0] == "failed" else None}
        if status is None and ready and not text:
            time.sleep(0.01)  # the child has closed the pipe, and is about to end


def _end_orphans() -> None:
    """End the Python processes that a child left to us; its servers have watchdogs, which end them."""
    for pid in _children():
        with suppress(OSError):
            if os.readlink(f"/proc/{pid}/exe") == os.path.realpath(sys.executable):
                os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _children() -> Iterable[int]:
    for task in Path("/proc/self/task").glob("*/children"):
        yield from map(int, task.read_text().split())
