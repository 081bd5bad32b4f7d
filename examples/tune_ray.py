"""Search a loss and its parameter with Ray Tune, through Ultralytics' `model.tune(use_ray=True)`.

    pip install '.[ray]'
    python examples/tune_ray.py

About a minute on two cores: three short trials. It shows how, not which value is good. Writes to
`runs/examples/tune_ray`.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # Ultralytics would install other versions of Ray's dependencies

import ray
from make_dataset import make_dataset
from ray import tune
from ultralytics import YOLO

FOLDER = Path("runs/examples/tune_ray").resolve()  # absolute: a trial runs in a folder of Ray's


def main() -> None:
    """Tune, and print what each trial chose and reached."""
    data = make_dataset(FOLDER / "data", train=96, val=24, imgsz=96)
    ray.init(include_dashboard=False)
    results = YOLO("yolov8n.yaml").tune(
        use_ray=True,
        # A choice of losses is possible too. A parameter of a loss that the trial did not choose is a warning.
        space={"cls_loss": tune.choice(["focal", "vfl"]), "focal_gamma": tune.uniform(0.5, 3.0)},
        iterations=3, search_alg="random", grace_period=6,
        data=str(data), epochs=6, imgsz=96, batch=8, nbs=8, device="cpu", workers=0, plots=False, amp=False,
        optimizer="AdamW", lr0=0.003, warmup_epochs=0.5, warmup_bias_lr=0, mosaic=0, scale=0.25,
        project=str(FOLDER), name="search",
    )  # fmt: skip
    for result in results:
        chosen = f"cls_loss={result.config['cls_loss']} focal_gamma={result.config['focal_gamma']:.2f}"
        reached = (result.metrics or {}).get("metrics/mAP50-95(B)", float("nan"))
        print(f"{chosen}: mAP50-95 {reached:.4f}", result.error or "")


if __name__ == "__main__":
    main()
