"""The application's line behind a call, across the switch into an asynchronous driver's greenlet, too."""

import asyncio

import pytest

from dbconfig.engine.pool.diagnostics import call_sites
from dbconfig.engine.pool.diagnostics.call_sites import describe, running


def test_the_line_that_calls_is_found():
    assert describe(running(1)[0]).endswith("in test_the_line_that_calls_is_found")


@pytest.mark.parametrize(("package", "found"), [("", False), ("sqlalchemy", False), ("a_driver", True)])
def test_what_is_known_of_modules_is_forgotten_for_a_new_package_only(monkeypatch, package, found):
    monkeypatch.setattr(call_sites, "_LIBRARIES", {"sqlalchemy"})
    monkeypatch.setattr(call_sites, "_known", {"a_driver.connections": False})
    call_sites.skip(package)
    assert {"sqlalchemy", *(["a_driver"] if found else [])} == call_sites._LIBRARIES
    assert call_sites._is_library("a_driver.connections") is found


def test_three_lines_of_the_application_are_enough():
    def innermost():
        return running()

    def inner():
        return innermost()

    def outer():
        return inner()

    def outermost():
        return outer()

    assert [code.co_name for code, _ in outermost()] == ["innermost", "inner", "outer"]


@pytest.mark.parametrize("depth", [1, 2])
def test_the_frames_that_wait_for_a_greenlet_are_found_and_the_depth_is_kept(depth):
    pytest.importorskip("greenlet")
    from sqlalchemy.util import greenlet_spawn

    async def application():
        return await greenlet_spawn(lambda: running(depth))

    names = [code.co_name for code, _ in asyncio.run(application())]
    assert names == ["<lambda>", "application"][:depth]
