"""Atomic writes, and backups of files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
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
