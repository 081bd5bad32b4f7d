"""Conversion of errors that Ultralytics raises to one-line messages."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def errors_in_one_line(what: str) -> Iterator[None]:
    """Convert exceptions of Ultralytics to a `ValueError` with a one-line message that starts with `what`.

    Its log is suppressed, and its progress goes to stderr, since stdout is for the report alone.
    """
    from ultralytics.utils import LOGGER

    def drop(record: logging.LogRecord) -> bool:
        return False

    LOGGER.addFilter(drop)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (Exception, SystemExit) as error:
        text = re.sub(r"\x1b\[[0-9;]*m", "", str(getattr(error, "msg", None) or error))
        lines = [line.strip() for line in text.replace(" ❌", "").replace("❌", "").splitlines() if line.strip()]
        lines = lines or [type(error).__name__]
        # The first line may be the banner, which names the device.
        lines = [line for line in lines if not line.startswith("Ultralytics ")] or lines
        # After "No valid images found in FILE." and "FILE key missing.", the next line has the reason.
        more = lines[0].startswith("No valid images") or "key missing" in lines[0]
        reason = " ".join(lines[: 2 if more else 1])
        raise ValueError(f"{what}: {reason}") from error
    finally:
        LOGGER.removeFilter(drop)
