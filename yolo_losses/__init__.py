"""Pick the loss of an Ultralytics YOLO by name: `yolo train ... cls_loss=slide box_loss=inner_siou`.

Importing the package makes Ultralytics know its training keys. What is below is loaded when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from yolo_losses.integration import hook as _hook

__version__ = "0.1.0"

if TYPE_CHECKING:  # what an editor and a type checker see; the losses themselves are found by their registration
    from yolo_losses.comparison import compare as compare
    from yolo_losses.config.settings import LossSettings as LossSettings
    from yolo_losses.integration.criteria import equip as equip
    from yolo_losses.integration.task_losses import DetectionLoss as DetectionLoss
    from yolo_losses.integration.task_losses import OBBLoss as OBBLoss
    from yolo_losses.integration.task_losses import PoseLoss as PoseLoss
    from yolo_losses.integration.task_losses import SegmentationLoss as SegmentationLoss
    from yolo_losses.losses.boxes._base import register_box_loss as register_box_loss
    from yolo_losses.losses.build import make_box_loss as make_box_loss
    from yolo_losses.losses.build import make_cls_loss as make_cls_loss
    from yolo_losses.losses.classification._base import register_cls_loss as register_cls_loss
    from yolo_losses.losses.masks._base import register_seg_loss as register_seg_loss
    from yolo_losses.registry.parameters import Param as Param

_HOMES = {
    "Param": "registry.parameters",
    "register_cls_loss": "losses.classification._base",
    "register_box_loss": "losses.boxes._base",
    "register_seg_loss": "losses.masks._base",
    "make_cls_loss": "losses.build",
    "make_box_loss": "losses.build",
    "LossSettings": "config.settings",
    "equip": "integration.criteria",
    "compare": "comparison",
    "DetectionLoss": "integration.task_losses",
    "SegmentationLoss": "integration.task_losses",
    "PoseLoss": "integration.task_losses",
    "OBBLoss": "integration.task_losses",
    "DistributionFocalLoss": "losses.distribution.dfl",
    "install": "integration.hook",
    "uninstall": "integration.hook",
}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return __dir__()
    if name == "functional":
        return importlib.import_module(f"{__name__}.functional")
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name.endswith("Loss"):
        from yolo_losses import registry

        for spec in registry.specs():
            if spec.module.__name__ == name:
                return spec.module
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    from yolo_losses import registry

    modules = [spec.module.__name__ for spec in registry.specs() if spec.kind != "modifier"]
    return sorted({"__version__", "functional", *_HOMES, *modules})


_hook.install()
