"""A fixture that reduces the number of resamples of reports."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def few_resamples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yolo_losses.comparison.stats.analysis.RESAMPLES", 100)
        yield
