"""What the tests share: tiny data sets, the stock command in a subprocess, criteria with made-up predictions."""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from make_dataset import Task, make_dataset

# Ultralytics reads these as it is first imported, here and in subprocesses: nothing is fetched, nobody's settings are
# touched.
CONFIG_FOLDER = tempfile.mkdtemp(prefix="yolo_losses_tests_")
os.environ.update(YOLO_CONFIG_DIR=CONFIG_FOLDER, YOLO_OFFLINE="true", MPLBACKEND="agg")
os.environ.pop("YOLO_LOSSES_DISABLE", None)

torch.set_num_threads(1)  # what is tested is small: more threads only wait for each other

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
SITE_PACKAGES = [p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]

# A training that takes a second or two once torch is imported.
TINY: dict[str, Any] = {
    "imgsz": 64,
    "batch": 4,
    "epochs": 1,
    "device": "cpu",
    "workers": 0,
    "amp": False,
    "plots": False,
    "optimizer": "SGD",
    "lr0": 0.01,
    "exist_ok": True,
}

# Starts a program as an environment does that this package was never installed in: no start-up files, no such module.
WITHOUT_PLUGIN = f"""
import sys
sys.path += {SITE_PACKAGES!r}
class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("yolo_losses", "yolo_losses_autoload"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Nowhere())
"""

# Groups of the golden boxes that lie on ties, where any subgradient is as good: equal boxes on those of min and max,
# touching ones on the bound of clamp, whose slope there is 1 in torch 2.5 and older, and 0 where the goldens are from.
_BOUND = torch.zeros((), requires_grad=True)
TIED = ("identical", *(["touching"] if torch.autograd.grad(_BOUND.clamp_min(0), _BOUND)[0] else []))


@functools.cache
def golden(family: str) -> tuple[dict[str, torch.Tensor], dict[str, Any], dict[str, Any]]:
    """Return the originals' numbers in `tests/golden`: the arrays, the cases by their id, and groups of rows."""
    folder = ROOT / "tests" / "golden"
    index = json.loads((folder / f"{family}.json").read_text(encoding="utf-8"))
    arrays = {name: torch.from_numpy(array) for name, array in np.load(folder / f"{family}.npz").items()}
    return arrays, {case["id"]: case for case in index["cases"]}, index.get("groups", {})


def gradient(
    loss: Callable[..., torch.Tensor], pred: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss per pair, and the gradient of its sum by the predictions."""
    pred = pred.detach().clone().requires_grad_()
    value = loss(pred, target)
    (grad,) = torch.autograd.grad(value.sum(), pred)
    return value.detach(), grad


def pytest_unconfigure() -> None:
    shutil.rmtree(CONFIG_FOLDER, ignore_errors=True)


@dataclass(frozen=True)
class Result:
    """How a subprocess ended: its exit code and all it printed, line by line (a progress bar's states too)."""

    code: int
    text: str

    @property
    def lines(self) -> list[str]:
        """What was printed, without empty lines."""
        return [line for line in self.text.splitlines() if line.strip()]

    def saying(self, words: str) -> list[str]:
        """Return the lines that contain these words."""
        return [line for line in self.lines if words in line]

    def check(self) -> Result:
        """Return this, or fail with what was printed where the exit code is not 0."""
        assert self.code == 0, self.text[-3000:]
        return self


def start(
    *command: str | Path, cwd: str | Path = CONFIG_FOLDER, timeout: float = 300, **env: str
) -> Callable[[], Result]:
    """Start a subprocess and return what waits for its result, so that two can run side by side.

    It does not run in the checkout, whose package would be found by standing beside it.
    """
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", **env},
        cwd=cwd,
    )

    def wait() -> Result:
        try:
            text = process.communicate(timeout=timeout)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            text = process.communicate()[0]
        return Result(process.returncode, text)

    return wait


def pairs(**keys: Any) -> list[str]:
    """Return keys as the command line has them."""
    return [f"{key}={value}" for key, value in keys.items()]


def start_yolo(*args: str, **env: str) -> Callable[[], Result]:
    """Start the stock command of this interpreter's environment."""
    command = shutil.which("yolo", path=str(Path(sys.executable).parent)) or shutil.which("yolo")
    assert command, "this environment has no `yolo`"
    return start(command, *args, **env)


def yolo(*args: str, **env: str) -> Result:
    """Run the stock command of this interpreter's environment."""
    return start_yolo(*args, **env)()


def start_without_plugin(code: str, *args: str) -> Callable[[], Result]:
    """Start code in an interpreter that cannot find this package."""
    return start(sys.executable, "-S", "-c", WITHOUT_PLUGIN + code, *args)


@contextmanager
def logged() -> Iterator[list[str]]:
    """Collect what Ultralytics' logger is given."""
    from ultralytics.utils import LOGGER

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    messages: list[str] = []
    handler = Collector()
    LOGGER.addHandler(handler)
    try:
        yield messages
    finally:
        LOGGER.removeHandler(handler)


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Task], Path]:
    """Return the path of a tiny data set's `data.yaml`, by task."""

    @functools.cache
    def dataset(task: Task) -> Path:
        return make_dataset(tmp_path_factory.mktemp(f"{task}_data"), train=8, val=4, imgsz=64, task=task)

    return dataset


@pytest.fixture(scope="session")
def data(datasets: Callable[[Task], Path]) -> Path:
    """The tiny detection data set."""
    return datasets("detect")


HEADS = {
    "v8": "yolov8n.yaml",
    "v10": "yolov10n.yaml",
    "26": "yolo26n.yaml",
    "v8-seg": "yolov8n-seg.yaml",
    "v8-pose": "yolov8n-pose.yaml",
    "v8-obb": "yolov8n-obb.yaml",
    "26-seg": "yolo26n-seg.yaml",
    "26-pose": "yolo26n-pose.yaml",
    "26-obb": "yolo26n-obb.yaml",
}
SIZE = 64


class Model(SimpleNamespace):
    """What a run asks of a model; equal to itself alone, as a module is."""

    __hash__ = object.__hash__


@functools.cache
def head(name: str, classes: int = 3) -> Any:
    """Return a model with the stock training arguments."""
    from ultralytics.cfg import get_cfg
    from ultralytics.nn import tasks

    kinds = {"seg": "SegmentationModel", "pose": "PoseModel", "obb": "OBBModel"}
    kind = kinds.get(name.partition("-")[2], "DetectionModel")
    torch.manual_seed(0)
    model = getattr(tasks, kind)(HEADS[name], nc=classes, verbose=False)
    model.args = get_cfg(overrides={"epochs": 10, "overlap_mask": False})
    return model.train()


def criterion_of(name: str, classes: int = 3) -> Any:
    """Return a fresh stock criterion of a head."""
    return head(name, classes).init_criterion()


@functools.cache
def outputs_of(name: str, images: int, classes: int) -> Any:
    with torch.no_grad():
        return head(name, classes)(torch.zeros(images, 3, SIZE, SIZE))


def predictions(name: str, images: int = 2, classes: int = 3, seed: int = 0) -> Any:
    """Return a head's outputs with made-up scores and boxes: good and bad, sure and unsure ones are among them."""
    generator = torch.Generator().manual_seed(seed)

    def shaken(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: shaken(v, k) for k, v in value.items()}
        if isinstance(value, list | tuple) and not key:  # before 8.4.0
            return type(value)(shaken(v) for v in value)
        if not isinstance(value, torch.Tensor):
            return value
        noise = torch.randn(value.shape, generator=generator)
        if key == "scores":
            value = noise * 2 - 3
        elif key == "boxes":
            value = value.float() + noise
        return value.clone().float().requires_grad_()

    return shaken(outputs_of(name, images, classes))


def tensors(value: Any) -> list[torch.Tensor]:
    """Return the tensors of a head's outputs that gradients flow to."""
    if isinstance(value, dict):
        return [tensor for inner in value.values() for tensor in tensors(inner)]
    if isinstance(value, list | tuple):
        return [tensor for inner in value for tensor in tensors(inner)]
    return [value] if isinstance(value, torch.Tensor) and value.requires_grad else []


def made_up_batch(name: str, images: int = 2, each: int = 3, classes: int = 3, seed: int = 1) -> dict[str, Any]:
    """Return a batch with `each` objects on every image."""
    generator = torch.Generator().manual_seed(seed)
    count = images * each
    boxes = torch.rand(count, 4, generator=generator) * torch.tensor([0.6, 0.6, 0.5, 0.5]) + 0.2
    batch: dict[str, Any] = {
        "img": torch.zeros(images, 3, SIZE, SIZE),
        "batch_idx": torch.arange(images).repeat_interleave(each).float(),
        "cls": torch.randint(classes, (count, 1), generator=generator).float(),
        "bboxes": boxes,
    }
    if name.endswith("obb"):
        batch["bboxes"] = torch.cat((boxes, torch.rand(count, 1, generator=generator)), 1)
    if name.endswith("pose"):
        shape = head(name, classes).model[-1].kpt_shape
        batch["keypoints"] = torch.cat(
            (torch.rand(count, shape[0], 2, generator=generator), torch.full((count, shape[0], 1), 2.0)), 2
        )
    if name.endswith("seg"):
        batch["masks"] = (torch.rand(count, SIZE // 4, SIZE // 4, generator=generator) > 0.5).float()
        batch["sem_masks"] = torch.zeros(images, SIZE // 4, SIZE // 4, dtype=torch.long)
    return batch


def run(criterion: Any, outputs: Any, batch: dict[str, Any]) -> tuple[dict[str, float], torch.Tensor, list[Any]]:
    """Return the logged terms, the loss, and its gradients by the head's outputs."""
    loss, items = criterion(outputs, {k: v.clone() for k, v in batch.items()})
    if not isinstance(items, dict):  # before 8.4.104
        items = dict(zip(("box_loss", "cls_loss", "dfl_loss"), items, strict=False))
    leaves = tensors(outputs)
    gradients = list(torch.autograd.grad(loss.sum(), leaves, allow_unused=True)) if loss.requires_grad else []
    return {key: float(value) for key, value in items.items()}, loss.detach(), gradients
