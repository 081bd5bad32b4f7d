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
    names = {registry.page_name(spec.kind, spec.name) for spec in losses}
    assert names <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_its_name_with_the_declared_defaults(path: Path) -> None:
    keys = yaml.safe_load(path.read_text())
    assert keys.pop("mode") == "train"  # before Ultralytics 8.4.101 a cfg replaces the mode word too
    task = "classify" if path.stem.startswith("classify_") else ""
    settings = LossSettings.from_mapping(keys, task)
    other = "cls" if task else "classify"  # the two have one key
    names = {kind: getattr(settings, key) for kind, key in registry.TERM_KEYS.items() if kind != other}
    assert path.stem == "_".join(registry.page_name(k, name) for k, name in names.items() if name != "stock")
    parameters = {key: value for key, value in keys.items() if key not in registry.TERM_KEYS.values()}
    assert parameters == dict(settings.parameters)  # all of them are listed
    assert parameters == {key: default_keys()[key] for key in parameters}
    assert "arXiv" in path.read_text() or "Source" in path.read_text()
