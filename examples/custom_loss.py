"""A loss of one's own, here the Brier score, as a function; its parameter becomes a training key.

    python examples/custom_loss.py

About 10 seconds. On the command line: `YOLO_LOSSES_PLUGINS=examples/custom_loss.py yolo train ... cls_loss=brier`.
"""

from tempfile import mkdtemp
from typing import Annotated

from torch import Tensor

from yolo_losses import Param, register_cls_loss


@register_cls_loss("brier", summary="Brier score: |p - t|^power", source="Brier, Monthly Weather Review 78, 1950")
def brier_loss(logits: Tensor, targets: Tensor, power: Annotated[float, Param("exponent", low=1)] = 2.0) -> Tensor:
    """Brier score, per element: `|p - t|^power`."""
    return (logits.sigmoid() - targets).abs() ** power


if __name__ == "__main__":  # a worker of a distributed training reads this file too
    from make_dataset import make_dataset
    from ultralytics import YOLO

    folder = mkdtemp()
    data = str(make_dataset(folder, train=16, val=8, imgsz=64))
    keys = {"cls_loss": "brier", "brier_power": 1.5}
    YOLO("yolov8n.yaml").train(data=data, epochs=1, imgsz=64, device="cpu", project=folder, **keys)
