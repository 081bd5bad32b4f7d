"""The shipped configs say what the declarations say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from yolo_losses import registry
from yolo_losses.commands.config import folder
from yolo_losses.config.settings import LossSettings, default_keys

CONFIGS = sorted(folder().glob("*.yaml"))


def test_every_loss_has_a_config() -> None:
    losses = [spec for spec in registry.specs() if spec.built_in and spec.kind != "modifier"]
    names = {f"seg_{spec.name}" if spec.kind == "seg" else spec.name for spec in losses}
    assert names <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_its_name_with_the_declared_defaults(path: Path) -> None:
    keys = yaml.safe_load(path.read_text())
    assert keys.pop("mode") == "train"  # before Ultralytics 8.4.101 a cfg replaces the mode word too
    settings = LossSettings.from_mapping(keys)
    chosen = (settings.cls_loss, settings.box_loss, f"seg_{settings.seg_loss}")
    named = "_".join(name for name in chosen if name not in ("stock", "seg_stock"))
    assert path.stem == named
    parameters = {key: value for key, value in keys.items() if key not in registry.TERM_KEYS.values()}
    assert parameters == dict(settings.parameters)  # all of them are listed
    assert parameters == {key: default_keys()[key] for key in parameters}
    assert "arXiv" in path.read_text() or "Source" in path.read_text()
