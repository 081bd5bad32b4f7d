"""Search a loss's parameter, `focal_gamma`, with Ultralytics' own tuner.

    python examples/tune.py

About 50 seconds on one core: three short trainings, each in its own process. It shows how, not which value is good.
Writes to `runs/examples/tune`.
"""

from __future__ import annotations

from pathlib import Path

from make_dataset import make_dataset
from ultralytics import YOLO

FOLDER = Path("runs/examples/tune").resolve()


def main() -> None:
    """Tune, and print the best value found."""
    data = make_dataset(FOLDER / "data", train=96, val=24, imgsz=96)
    YOLO("yolov8n.yaml").tune(
        # Lower and upper bound. Numeric parameters of losses go beside Ultralytics' own (`lr0`, `box`, ...); different
        # losses are compared with `yolo-losses compare`, or with Ray: examples/tune_ray.py.
        space={"focal_gamma": (0.5, 3.0)},
        iterations=3,
        cls_loss="focal",
        data=str(data), epochs=6, imgsz=96, batch=8, nbs=8, device="cpu", workers=0, plots=False, amp=False,
        optimizer="AdamW", lr0=0.003, warmup_epochs=0.5, warmup_bias_lr=0, mosaic=0, scale=0.25,
        project=str(FOLDER), name="search",
    )  # fmt: skip
    # The first iteration takes the parameter's default; a second run of this file writes to a new folder.
    best = max(FOLDER.glob("search*/best_hyperparameters.yaml"), key=lambda path: path.stat().st_mtime)
    print(f"\n{best}:\n{best.read_text(encoding='utf-8')}")


if __name__ == "__main__":
    main()
