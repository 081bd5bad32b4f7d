"""The keys of the task-aligned assigner: attributes of the stock assigner that are set while it is called.

Outside its calls, an assigner has its stock values, so that its pickles are stock ones.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from torch import Tensor

from yolo_losses.config.settings import LossSettings, format_number
from yolo_losses.losses.boxes.ciou import ciou_loss
from yolo_losses.losses.boxes.diou import diou_loss
from yolo_losses.losses.boxes.giou import giou_loss
from yolo_losses.losses.boxes.iou import iou_loss
from yolo_losses.losses.boxes.nwd import nwd_loss
from yolo_losses.registry import InvalidValueError

# The attribute of an assigner that each key needs.
ATTRIBUTES: Mapping[str, str] = MappingProxyType(
    {
        "tal_topk": "topk",
        "tal_alpha": "alpha",
        "tal_beta": "beta",
        "tal_overlap": "iou_calculation",
        "tal_min_side": "stride_val",
    }
)
FORMULAS: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {"iou": iou_loss, "giou": giou_loss, "diou": diou_loss, "ciou": ciou_loss, "nwd": nwd_loss}
)


def check(assigner: Any, settings: LossSettings) -> None:
    """Raise a `ValueError` if an assigner cannot use a key.

    Args:
        assigner: a stock assigner.
        settings: the parsed keys.
    """
    for key, attribute in ATTRIBUTES.items():
        value, reason = getattr(settings, key), ""
        if value == "stock":
            continue
        if not hasattr(assigner, attribute):
            import ultralytics

            reason = f"which has no '{attribute}' to set in this Ultralytics ({ultralytics.__version__})"
        elif key == "tal_overlap" and hasattr(assigner, "sigmas"):
            reason = "which ranks by the similarity of keypoints"
        if reason:
            raise InvalidValueError(
                key, value, f"cannot be used with {type(assigner).__name__}, {reason}: allowed is stock"
            )


def check_release(settings: LossSettings) -> None:
    """Raise a `ValueError` if the assigners of the installed Ultralytics cannot use a key."""
    from ultralytics.utils.tal import TaskAlignedAssigner

    check(TaskAlignedAssigner(), settings)


def values(assigner: Any, settings: LossSettings) -> dict[str, Any]:
    """Return the attributes of an assigner that differ from stock, by name.

    An assigner with one candidate per object, as in a one-to-one branch, keeps its `topk`. A smaller `topk2`, by which
    YOLO26 filters the candidates of its one-to-one branch, is also kept.
    """
    found: dict[str, Any] = {}
    if settings.tal_topk != "stock" and assigner.topk != 1:
        found["topk"] = settings.tal_topk
        if getattr(assigner, "topk2", None) == assigner.topk:  # a copy made by the constructor, not a filter
            found["topk2"] = settings.tal_topk
    if settings.tal_alpha != "stock":
        found["alpha"] = settings.tal_alpha
    if settings.tal_beta != "stock":
        found["beta"] = settings.tal_beta
    if settings.tal_overlap != "stock":
        constants = {"constant": settings.parameters["nwd_constant"]} if settings.tal_overlap == "nwd" else {}
        found["iou_calculation"] = functools.partial(_overlap, FORMULAS[settings.tal_overlap], constants)
    if settings.tal_min_side != "stock":
        found["stride_val"] = settings.tal_min_side
        # Up to 8.4.50, sides are compared with the first stride.
        found["stride"] = [settings.tal_min_side, *assigner.stride[1:]]
    return found


@contextmanager
def applied(assigner: Any, changed: Mapping[str, Any], anchors: int) -> Iterator[None]:
    """Set attributes of an assigner within a `with` block.

    Args:
        assigner: a stock assigner.
        changed: the attributes by name, as returned by `values`.
        anchors: number of anchors of the call, which limits the number of candidates.
    """
    own = assigner.__dict__
    before = {name: own[name] for name in changed if name in own}
    own.update(changed, **{name: min(changed[name], anchors) for name in ("topk", "topk2") if name in changed})
    try:
        yield
    finally:
        for name in changed.keys() - before.keys():
            del own[name]
        own.update(before)


def describe(assigner: Any, settings: LossSettings) -> str:
    """Return the values that differ from stock as text: `topk=20 (stock 10), overlap=nwd (nwd_constant=12.8)`."""
    words = []
    if settings.tal_topk != "stock":
        words.append(f"topk={settings.tal_topk} (stock {assigner.topk})")
        if assigner.topk == 1:
            words[-1] = "topk=1 as in stock, one positive per object"
        elif getattr(assigner, "topk2", assigner.topk) != assigner.topk:
            words[-1] += f", of which {assigner.topk2} stays"
    for name in ("alpha", "beta"):
        value = getattr(settings, f"tal_{name}")
        if value != "stock":
            words.append(f"{name}={format_number(value)} (stock {format_number(getattr(assigner, name))})")
    if settings.tal_overlap != "stock":
        constant = settings.parameters.get("nwd_constant") if settings.tal_overlap == "nwd" else None
        words.append(f"overlap={settings.tal_overlap}" + (f" (nwd_constant={constant:g})" if constant else ""))
    if settings.tal_min_side != "stock":
        words.append(f"min_side={settings.tal_min_side:g} (stock {assigner.stride_val:g})")
    return ", ".join(words)


def _overlap(
    formula: Callable[..., Tensor], constants: Mapping[str, Any], gt_bboxes: Tensor, pd_bboxes: Tensor
) -> Tensor:
    """Replaces `iou_calculation`: returns the overlap of pairs of boxes `xyxy` in pixels, shape `(N,)`, at least 0."""
    return (1 - formula(pd_bboxes, gt_bboxes, **constants)).clamp_(0).to(pd_bboxes.dtype)
