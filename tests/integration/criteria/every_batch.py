"""A fixture with which `loss_stats` measures every batch."""

from __future__ import annotations

import pytest

from yolo_losses.monitor import gather as statistics


@pytest.fixture
def every(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure every batch."""
    monkeypatch.setattr(statistics, "EVERY", 1)
