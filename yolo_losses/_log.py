"""Logging with a common prefix, on the first rank only."""

from __future__ import annotations

from typing import Any

PREFIX = "yolo_losses: "


def is_first_rank() -> bool:
    """Return whether this process is the first rank of distributed training, or the only process."""
    from ultralytics.utils import RANK

    return RANK in (-1, 0)


def log(message: str, warn: bool = False, over_bar: bool = False) -> None:
    """Log a line on the first rank; `over_bar` starts a new line after a progress bar."""
    if is_first_rank():
        logger = _logger()
        (logger.warning if warn else logger.info)(f"{chr(10) if over_bar else ''}{PREFIX}{message}")


def _logger() -> Any:
    from ultralytics.utils import LOGGER

    return LOGGER
