"""The model that a recommendation is for: its task, its strides, and the time that a step takes here."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolo_losses.recommendation.errors import errors_in_one_line

if TYPE_CHECKING:
    from torch import Tensor

SLOW_STEP = 3.0  # seconds; after a step that takes longer, no other is measured


@dataclass(frozen=True)
class Network:
    """A model.

    Attributes:
        name: its name, as passed to `yolo train`.
        task: its task.
        imgsz: size that a checkpoint was trained at, which `yolo train` takes when no `imgsz` is passed; else `None`.
        stride: stride of its finest grid in pixels; `None` if it has none, or matches queries.
        end_to_end: whether it has a one-to-one branch.
        queries: whether it matches queries, as RT-DETR does.
        finer: name of a network of its family with a finer grid, empty if Ultralytics has none.
        module: the `nn.Module`.
    """

    name: str
    task: str
    imgsz: int | None
    stride: float | None
    end_to_end: bool
    queries: bool
    finer: str
    module: Any

    def seconds_per_image(self, imgsz: int, device: Any) -> tuple[float | None, str]:
        """Return the time of forward and backward for one image, and the name of the device.

        The time is `None` if the GPU lacks the memory.

        Raises:
            ValueError: if there is no such device.
        """
        import torch
        from ultralytics.utils.torch_utils import select_device

        with errors_in_one_line(f"'device={device}'"):
            where = select_device(str(device if device is not None else ""), verbose=False)
        name = torch.cuda.get_device_name(where) if where.type == "cuda" else f"this {where.type.upper()}"
        try:
            return _seconds_per_image(self.module.to(where).float().train(), imgsz, where), name
        except torch.cuda.OutOfMemoryError:
            return None, name


def _seconds_per_image(network: Any, imgsz: int, device: Any) -> float:
    import torch

    batch = 2 if device.type == "cpu" else 16
    for parameter in network.parameters():
        parameter.requires_grad_()
    images = torch.rand(batch, 3, imgsz, imgsz, device=device)
    seconds = 0.0
    for _ in range(3):  # the first step allocates
        if seconds > SLOW_STEP:
            break
        start = time.perf_counter()
        sum(output.float().mean() for output in _tensors(network(images))).backward()  # type: ignore[union-attr]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
    network.zero_grad(set_to_none=True)
    return seconds / batch


def load(name: str | None, task: str) -> Network:
    """Return a model. Missing weights are not downloaded; a new model is built instead.

    Args:
        name: as for `yolo train`; `None`: the default of `yolo train` for the task.
        task: the task to use if `name` is `None`.

    Raises:
        ValueError: if there is no such model.
    """
    import ultralytics
    from ultralytics.cfg import TASK2MODEL
    from ultralytics.nn.tasks import BaseModel

    name = str(TASK2MODEL[task] if name is None else name)
    missing = Path(name).suffix == ".pt" and not Path(name).is_file()
    build = ultralytics.RTDETR if "rtdetr" in Path(name).stem.lower() else ultralytics.YOLO
    with errors_in_one_line(f"'model={name}'"):
        model = build(f"{Path(name).stem}.yaml" if missing else name)
        module = model.model
        if not isinstance(module, BaseModel):
            raise ValueError("an exported model cannot be trained")
    head = module.model[-1]
    queries = type(head).__name__.startswith("RTDETR")
    grid = model.task not in ("classify", "semantic") and not queries
    return Network(
        name=name,
        task=str(model.task),
        imgsz=model.overrides.get("imgsz"),
        stride=float(module.stride.min()) if grid else None,
        end_to_end=hasattr(head, "one2one_cv2"),
        queries=queries,
        finer=_finer(module) if grid else "",
        module=module,
    )


def _finer(module: Any) -> str:
    """Return the name of a network of the same family whose finest grid has half the stride, if Ultralytics has one."""
    from ultralytics.utils.checks import check_yaml

    name = f"{Path(str(module.yaml.get('yaml_file'))).stem}-p2.yaml"
    of_all_scales = re.sub(r"(\d)[nslmx](?=[-.])", r"\1", name)  # yolov8n-p2.yaml is a scale of yolov8-p2.yaml
    return name if check_yaml(of_all_scales, hard=False) else ""


def _tensors(output: Any) -> Iterator[Tensor]:
    """Yield the tensors that require a gradient in the output of a network."""
    import torch

    if isinstance(output, torch.Tensor):
        if output.requires_grad:
            yield output
    elif isinstance(output, Mapping):
        for part in output.values():
            yield from _tensors(part)
    elif isinstance(output, Sequence):
        for part in output:
            yield from _tensors(part)
