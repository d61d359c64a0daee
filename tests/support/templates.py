"""Data directories that are made once for each version of a server, kept on this machine, and copied from then on."""

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_KEPT = 7 * 24 * 3600  # seconds since its last use after which a template is removed


def copy_of_template(kind: str, identity: str, make: Callable[[Path], None], target: Path) -> None:
    """Copy the template of `kind` to `target`.

    Args:
        identity: what the content depends on; another one asks for another template.
        make: fills the folder it is given; called where there is no such template yet.
    """
    root = kept_folder()
    name = f"{kind}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    with _locked(root / "lock"):  # workers that start together wait for the first of them to make it
        template = root / name
        if not template.exists():
            _sweep(root)
            unfinished = root / f"{name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
            make(unfinished)
            unfinished.rename(template)
        os.utime(template)
    shutil.copytree(template, target)


def kept_folder() -> Path:
    """Return the folder for what the runs of a user share."""
    root = Path(tempfile.gettempdir()) / f"dbconfig-templates-{os.geteuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    if root.is_symlink() or root.stat().st_uid != os.geteuid():
        raise RuntimeError(f"{root} belongs to somebody else: remove it")
    return root


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file releases the lock, and so does being killed


def _sweep(root: Path) -> None:
    for template in root.glob("*-*"):
        if time.time() - template.stat().st_mtime > _KEPT:
            shutil.rmtree(template, ignore_errors=True)
