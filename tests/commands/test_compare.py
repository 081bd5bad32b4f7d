"""The options of `yolo-losses compare`."""

from __future__ import annotations

import argparse

import pytest

from yolo_losses.commands import compare


@pytest.mark.parametrize(("text", "value"), [("0.005", 0.005), ("0.5%", 0.005), ("1%", 0.01)])
def test_a_share_may_be_written_in_per_cent(text: str, value: float) -> None:
    parser = argparse.ArgumentParser()
    compare.configure(parser)
    assert parser.parse_args(["--rope", text]).rope == pytest.approx(value)
