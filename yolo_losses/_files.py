"""Files that are written as a whole, and files that are kept under another name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Have a file written beside `path` and put in its place: at any time, `path` is the old file or the new one.

    Args:
        path: the file.
        write: called with the path to write to.

    Raises:
        Exception: what `write` raises, or an `OSError`; `path` is as it was then, and nothing is left beside it.
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
    """Rename a file to its name and `.old`, or `.old2`, ... where there is such a file already; return the new path.

    Raises:
        OSError: if it cannot be renamed.
    """
    number = 1
    while (aside := path.with_name(f"{path.name}.old{number if number > 1 else ''}")).exists():
        number += 1
    path.rename(aside)
    return aside
