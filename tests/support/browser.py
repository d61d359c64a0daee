"""A page as a browser shows it: Debian's Chromium without a window."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
# Nothing leaves this machine, and no profile of a user is read; without a sandbox it runs as root, too.
_OPTIONS: Final = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--no-first-run",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
LIMIT: Final = 240  # seconds, on a machine that does much else


def program() -> str | None:
    """Return the browser; None where there is none."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


def dom(url: str, *, milliseconds: int = 10_000) -> str:
    """Return the document that a page has become, its scripts done, after so much of its own time."""
    return _run("--dump-dom", f"--virtual-time-budget={milliseconds}", url)


def screenshot(url: str, path: Path, *, width: int = 800, height: int = 600) -> None:
    """Write a PNG of a page."""
    # Each pixel of the page is two of the picture.
    _run(f"--screenshot={path}", f"--window-size={width},{height}", "--force-device-scale-factor=2", url)
    assert path.exists()


def _run(*arguments: str) -> str:
    browser = program()
    assert browser is not None
    with tempfile.TemporaryDirectory(prefix="browser.", ignore_cleanup_errors=True) as folder:
        done = subprocess.run(
            [browser, *_OPTIONS, f"--user-data-dir={folder}", *arguments],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            env={**os.environ, "HOME": folder},
        )
    assert done.returncode == 0, done.stderr
    return done.stdout
