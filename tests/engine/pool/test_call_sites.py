"""The application's line behind a call, across the switch into an asynchronous driver's greenlet, too."""

import asyncio

import pytest

from dbconfig.engine.pool.diagnostics.call_sites import describe, running


def test_the_line_that_calls_is_found():
    assert describe(running(1)[0]).endswith("in test_the_line_that_calls_is_found")


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
