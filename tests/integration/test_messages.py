"""The start line of a run."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import HEADS, SIZE, Model, criterion_of, logged
from ultralytics.models.utils.loss import RTDETRDetectionLoss

from yolo_losses.config.settings import LossSettings
from yolo_losses.integration import messages
from yolo_losses.integration.equipment import Equipment


@pytest.mark.parametrize("name", [*HEADS, "rtdetr"])
def test_the_start_line_names_the_distances_term_that_the_head_has(name: str) -> None:
    criterion: Any = RTDETRDetectionLoss(nc=3) if name == "rtdetr" else criterion_of(name)
    equipment = Equipment(Model(criterion=criterion), LossSettings.from_mapping({"cls_scale": 2}), (), SIZE)
    equipment.equip("training", criterion)
    with logged() as lines:
        messages.log_start(equipment, ("training",))
    term = "l1_loss" if name.startswith(("26", "rtdetr")) else "dfl_loss"
    assert lines == [f"yolo_losses: cls_loss=stock, times 2; box_loss=stock; {term}=stock; {lines[0].split('; ')[-1]}"]
