"""A fork that the interpreter did not see: tell the child that it is one, before it starts a thread."""

from __future__ import annotations

import _imp
import os
import sys
from asyncio import _get_running_loop


def tell_the_interpreter() -> None:
    """Do what the process that forked in C should have done, by Python's manual: call `PyOS_AfterFork_Child`.

    Otherwise the interpreter's lock (GIL) still counts the parent's threads that waited for it at the fork. glibc's
    condition variable, before 2.41, waits for them before it wakes another thread: in the child forever. Its first
    thread hangs with the caller of `Thread.start`. Locks that the parent's threads held, such as those of `threading`,
    stay locked, too.
    """
    if sys.implementation.name != "cpython" or not _is_due():
        return
    import ctypes  # takes 3 ms, which only such a child has to pay

    python = ctypes.pythonapi
    python.PyInterpreterState_Head.restype = python.PyInterpreterState_Next.restype = ctypes.c_void_p
    if python.PyInterpreterState_Next(ctypes.c_void_p(python.PyInterpreterState_Head())) is not None:
        return  # it would end the other interpreters, and applications of uWSGI that are in them
    if not _imp.lock_held():
        _imp.acquire_lock()  # as before a fork; the call releases it
    python.PyOS_AfterFork_Child()


def _is_due() -> bool:
    """Check that the parent had several threads, and that the call, which comes late, cannot hurt."""
    if len(sys._current_frames()) < 2 or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return False
    # The interpreter would forget other threads of this process, and asyncio the loop that is running.
    return _threads() == 1 and _get_running_loop() is None


def _threads() -> int:
    """Return how many threads this process has, as the kernel counts them; 0 if it does not say."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0
