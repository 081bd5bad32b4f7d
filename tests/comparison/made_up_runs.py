"""Folders of runs as `yolo-losses compare` leaves them, made up: nothing is trained."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from yolo_losses.comparison.stats.resampling import RECALLS, Detections, resample

CLASSES = ["car", "person", "sign"]


def labels(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(images), rng.integers(1, 9, images))
    return image, rng.choice(len(CLASSES), len(image), p=[0.5, 0.35, 0.15])


def detections(skill: float, rng: np.random.Generator, images: int = 60, background: int = 12) -> Detections:
    """Return made-up detections: every label is found at an IoU that grows with `skill`, and there are false ones."""
    target_image, target_cls = labels(images)
    hardness = np.random.default_rng(1).normal(0, 1, len(target_image))  # of the label, the same for all models
    level = np.clip(np.round(5 * skill + 1.5 * hardness + rng.normal(0, 1.5, len(target_image))), 0, 10)
    tp = np.arange(10) < level[:, None]
    found = 1 / (1 + np.exp(-(hardness + rng.normal(skill, 1, len(target_image)))))
    false = images * background
    return Detections(
        tp=np.concatenate([tp, np.zeros((false, 10), bool)]),
        conf=np.concatenate([found, rng.beta(1, 5, false)]).astype(np.float32),
        cls=np.concatenate([target_cls, rng.integers(0, len(CLASSES), false)]).astype(float),
        image=np.concatenate([target_image, rng.integers(0, images, false)]),
        target_cls=target_cls.astype(float),
        target_image=target_image,
        images=images,
    )


def metrics(found: Detections) -> dict[str, Any]:
    values = resample(found, np.ones((found.images, 1)))
    own = {name: float(values.metric(name)[0]) for name in ("map50_95", "map50", "map75", "precision", "recall")}
    per_class = {
        CLASSES[c]: {"map50_95": float(values.ap[i].mean()), "map50": float(values.ap[i, 0, 0])}
        for i, c in enumerate(values.classes)
    }
    precision = np.clip(1.05 * own["map50"] + 0.3 - RECALLS**4, 0, 1)
    return {**own, "per_class": per_class, "pr": {"recall": RECALLS.tolist(), "precision": precision.tolist()}}


def results_csv(best: dict[str, Any], epochs: int, rng: np.random.Generator, size: float = 1.0) -> str:
    header = (
        "epoch,time,train/box_loss,train/cls_loss,train/dfl_loss,metrics/precision(B),metrics/recall(B),"
        "metrics/mAP50(B),metrics/mAP50-95(B),val/box_loss,val/cls_loss,val/dfl_loss,lr/pg0"
    )
    rows = [header]
    for epoch in range(1, epochs + 1):
        grown = (1 - np.exp(-3 * epoch / epochs)) * rng.normal(1, 0.03)
        loss = [x * (0.4 + np.exp(-2 * epoch / epochs)) for x in (2.0, 3.0 * size, 1.6)]
        own = [best[k] * grown for k in ("precision", "recall", "map50", "map50_95")]
        val = [1.1 * x for x in loss]
        rows.append(",".join(f"{x:.5g}" for x in (epoch, 9.7 * epoch, *loss, *own, *val, 0.01)))
    return "\n".join(rows) + "\n"


def loss_stats_csv(branches: Sequence[str], epochs: int, rng: np.random.Generator, size: float) -> str:
    columns = ("share/box", "share/cls", "cls_to_bce/value", "cls_to_bce/gradient", "cls_scale")
    columns += ("without_positive/0-16", "mean_target/0-16")
    names = [f"{branch}/{column}" if branch else column for branch in branches for column in columns]
    rows = [",".join(["epoch", *names])]
    for epoch in range(1, epochs + 1):
        share = size / (1 + size) * rng.normal(1, 0.05)
        row = (
            1 - share,
            share,
            size * np.exp(-epoch / epochs),
            size**0.5 * rng.normal(1, 0.05),
            1 / size,
            0.2,
            math.nan,
        )
        rows.append(",".join(f"{x:.5g}" for x in (epoch, *row * len(branches))))
    return "\n".join(rows) + "\n"


def write_run(
    folder: Path,
    configuration: dict[str, Any],
    seed: int,
    *,
    skill: float = 1.0,
    noise: float = 0.03,
    data: str = "my.yaml",
    images: int = 60,
    epochs: int = 12,
    by_hand: bool = False,
    error: str | None = None,
    settings: dict[str, Any] | None = None,
    statistics: Sequence[str] | None = None,
    **changes: Any,
) -> None:
    """Write one run's folder: `record.json`, `validation.npz`, `args.yaml`, `results.csv`, perhaps `loss_stats.csv`."""
    name = " ".join(f"{k}={v}" for k, v in configuration.items())
    own = np.random.default_rng([seed, *name.encode(), *data.encode()])
    shared = np.random.default_rng([seed, 7])
    skill = skill + shared.normal(0, noise) + own.normal(0, noise)
    folder = folder / "runs" / f"{name.replace(' ', '+')}+{Path(data).stem}" / f"seed{seed}"
    folder.mkdir(parents=True)
    args = {
        "model": "yolov8n.yaml",
        "data": data,
        "epochs": epochs,
        "imgsz": 128,
        "seed": seed,
        "cls": 0.5,
        **configuration,
        **(settings or {}),
        "save_dir": str(folder),
    }
    (folder / "args.yaml").write_text(yaml.safe_dump({k: v for k, v in args.items() if v != "stock"}, sort_keys=False))
    best, last = (detections(skill - less, own, images) for less in (0.0, 0.02))
    values = metrics(best)
    size = 0.1 if configuration.get("cls_loss") == "focal" else 1.0
    (folder / "results.csv").write_text(results_csv(values, epochs, own, size))
    if statistics is not None:  # the branches of the head
        (folder / "loss_stats.csv").write_text(loss_stats_csv(statistics, epochs, own, size))
    if by_hand:
        return
    arrays = {
        f"{which}_{k}": getattr(found, k)
        for which, found in (("best", best), ("last", last))
        for k in ("tp", "conf", "cls", "image")
    }
    shared_arrays = {"target_cls": best.target_cls, "target_image": best.target_image, "images": images}
    record = {
        "configuration": configuration,
        "name": name,
        "seed": seed,
        "data": data,
        "data_hash": "3f1c77aa90b2d4e1",
        "classes": CLASSES,
        "status": "failed" if error else "finished",
        "error": error,
        "versions": {"ultralytics": "8.4.190", "torch": "2.14.0", "yolo_losses": "0.1.0", "python": "3.11.2"},
        "device": "cpu",
        "weights_hash": f"{seed:04x}9ad03c5b21ff",
        "order_hash": f"{seed:04x}e60b18c7d2aa",
        "seconds_per_epoch": float(own.normal(9.7, 0.2)),
        "peak_memory_mb": 812.0,
        "epochs": epochs,
        "best": None if error else values,
        "last": None if error else metrics(last),
        **changes,
    }
    (folder / "record.json").write_text(json.dumps(record))
    if not error:
        np.savez_compressed(folder / "validation.npz", **arrays, **shared_arrays)
