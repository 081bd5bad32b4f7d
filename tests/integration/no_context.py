"""A fixture that leaves no model's loss being computed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from yolo_losses.integration import context


@pytest.fixture
def no_context() -> Iterator[None]:
    yield
    context.enter(None)
