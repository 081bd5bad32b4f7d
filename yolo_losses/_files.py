"""Atomic writes, locks, and backups of files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file atomically: at any time, `path` is the old or the new file.

    Args:
        path: the file.
        write: called with the path of a temporary file, which then replaces `path`.

    Raises:
        Exception: any exception of `write`, or an `OSError`; `path` is then unchanged and the temporary file removed.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        write(part)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that belongs to a file, in the file of its name with `.lock`, and wait for it before.

    Other processes and, where the file system has locks, other machines wait likewise. There is none on Windows.
    """
    with path.with_name(f"{path.name}.lock").open("a") as lock:
        # `path` itself is replaced when it is written, so that a lock on it would be that of an old file.
        with contextlib.suppress(ImportError, OSError):  # some file systems of clusters have no locks
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def put_aside(path: Path) -> Path:
    """Rename a file by appending `.old`, or the first unused of `.old2`, `.old3`, ..., and return the new path.

    Raises:
        OSError: if it cannot be renamed.
    """
    number = 1
    while (aside := path.with_name(f"{path.name}.old{number if number > 1 else ''}")).exists():
        number += 1
    path.rename(aside)
    return aside
