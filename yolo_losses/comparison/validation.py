"""Validation of the checkpoints of a run: metrics, and the detections of each image."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from yolo_losses.comparison.record import Metrics
from yolo_losses.comparison.training import load_model

Arrays = dict[str, npt.NDArray[Any]]
# Keys of the training that also apply to the validation; all others have Ultralytics' default.
VALIDATION_KEYS = ("imgsz", "batch", "device", "workers", "split", "iou", "max_det", "agnostic_nms", "classes")


def recording_validator(base: type) -> type:
    """Return a subclass of a validator that keeps the detections of each image."""

    class Recorder(base):
        """A validator that keeps its statistics; `instance` is the last one."""

        instance: Recorder

        def init_metrics(self, model: Any) -> None:
            super().init_metrics(model)
            self.images: list[int] = []  # image index of each entry of the statistics
            type(self).instance = self

        def update_metrics(self, preds: Any, batch: Any) -> None:
            first = self.seen
            before = len(self._statistics()["conf"])
            super().update_metrics(preds, batch)
            numbers = list(range(first, self.seen))
            if len(self._statistics()["conf"]) - before < len(numbers):  # before 8.3.142 an empty image has no entry
                with_objects = set(batch["batch_idx"].int().tolist())
                numbers = [first + i for i, pred in enumerate(preds) if len(pred) or i in with_objects]
            self.images += numbers

        def get_stats(self) -> Any:
            found = self._statistics()
            self.stat_arrays = {
                name: [np.asarray(part.cpu() if isinstance(part, torch.Tensor) else part) for part in found[name]]
                for name in ("tp", "conf", "pred_cls", "target_cls")
            }
            return super().get_stats()

        def _statistics(self) -> dict[str, list[Any]]:
            found: dict[str, list[Any]] = getattr(self.metrics, "stats", None) or self.stats
            return found

    return Recorder


def validate(weights: Path, plan: dict[str, Any]) -> tuple[Metrics, Arrays, list[str]]:
    """Validate a checkpoint and return its metrics, the detections of each image, and the names of the classes."""
    model = load_model(str(weights), plan["settings"].get("task"))
    recorder = recording_validator(model._smart_load("validator"))
    model.add_callback("on_val_start", lambda validator: torch.set_num_threads(plan["threads"]))
    scratch = weights.parent.parent / "validation"
    settings = {key: plan["settings"][key] for key in VALIDATION_KEYS if plan["settings"].get(key) is not None}
    if settings.get("batch", 1) < 1:  # automatic batch size, only for training
        del settings["batch"]
    try:
        model.val(
            validator=recorder,
            **settings,
            data=plan["data"],
            project=str(scratch.parent),
            name=scratch.name,
            exist_ok=True,
            plots=False,
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    validator = recorder.instance  # type: ignore[attr-defined]
    names = dict(validator.names)
    return (
        metrics_of(validator.metrics.box, names),
        detections_by_image(validator),
        [names[key] for key in sorted(names)],
    )


def metrics_of(box: Any, names: dict[int, str]) -> Metrics:
    """Return the metrics of a validation."""
    per_class = {}
    for index, number in enumerate(box.ap_class_index):
        _, _, ap50, ap = box.class_result(index)
        per_class[names[int(number)]] = {"map50_95": float(ap), "map50": float(ap50)}
    recall = np.linspace(0, 1, 101)
    curves = getattr(box, "prec_values", None)
    pr = None
    if curves is not None and len(curves):
        precision = np.interp(recall, np.asarray(box.px), np.asarray(curves).mean(0))
        pr = {"recall": [round(float(r), 2) for r in recall], "precision": [round(float(p), 5) for p in precision]}
    return {
        "map50_95": float(box.map),
        "map50": float(box.map50),
        "map75": float(box.map75),
        "precision": float(box.mp),
        "recall": float(box.mr),
        "per_class": per_class,
        "pr": pr,
    }


def detections_by_image(validator: Any) -> Arrays:
    """Return predictions and labels with the index of their image, for `validation.npz`."""
    arrays, images = validator.stat_arrays, validator.images

    def concatenate(name: str, shape: tuple[int, ...], kind: type) -> npt.NDArray[Any]:
        return np.concatenate([np.zeros(shape), *arrays[name]]).astype(kind)

    def image_index(name: str) -> npt.NDArray[Any]:
        return np.repeat(np.asarray(images, int), [len(part) for part in arrays[name]])

    return {
        "tp": concatenate("tp", (0, 10), bool),
        "conf": concatenate("conf", (0,), np.float32),
        "cls": concatenate("pred_cls", (0,), np.int32),
        "image": image_index("conf"),
        "target_cls": concatenate("target_cls", (0,), np.int32),
        "target_image": image_index("target_cls"),
        "images": np.asarray(validator.seen),
    }
