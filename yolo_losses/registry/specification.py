"""The declaration of a loss: its name, kind, module and parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from yolo_losses.registry.parameters import Parameter, Value

Kind = Literal["cls", "classify", "box", "modifier", "seg", "ce", "dice", "l1", "angle", "sem", "pose", "kobj"]


@dataclass(frozen=True)
class LossKind:
    """A kind of loss: the losses that one training key selects by name.

    Attributes:
        key: the training key; for modifiers, that of the losses they modify.
        noun: the name of a loss of this kind in messages.
        group: the group in listings.
        title: the heading of the group.
        prefix: prefix of the training keys of the losses' parameters, before the name of the loss.
        page_prefix: prefix of the names of pages, pictures and configs; `prefix` by default.
    """

    key: str
    noun: str
    group: str
    title: str
    prefix: str = ""
    page_prefix: str = ""


KINDS: Mapping[Kind, LossKind] = MappingProxyType(
    {
        "cls": LossKind("cls_loss", "class loss", "class", "cls_loss: classification"),
        "box": LossKind("box_loss", "box loss", "box", "box_loss: axis-aligned boxes"),
        "seg": LossKind("seg_loss", "mask loss", "mask", "seg_loss: masks (task segment)", "seg_"),
        "modifier": LossKind(
            "box_loss",
            "modifier of box losses",
            "modifiers",
            "modifiers, prefixes of a box loss: inner_siou, focaler_inner_ciou",
        ),
        "classify": LossKind(
            "cls_loss",
            "loss of the task classify",
            "classify",
            "cls_loss in the task classify",
            page_prefix="classify_",
        ),
        "ce": LossKind("ce_loss", "pixel loss of the task semantic", "pixel", "ce_loss: pixels (task semantic)", "ce_"),
        "dice": LossKind(
            "dice_loss", "region loss of the task semantic", "region", "dice_loss: regions (task semantic)", "dice_"
        ),
        "l1": LossKind("l1_loss", "loss of box distances", "l1", "l1_loss: box distances (YOLO26, RT-DETR)", "l1_"),
        "angle": LossKind(
            "angle_loss", "angle loss", "angle", "angle_loss: angles of rotated boxes (task obb)", "angle_"
        ),
        "sem": LossKind(
            "sem_loss",
            "loss of auxiliary masks",
            "auxiliary",
            "sem_loss: auxiliary masks of YOLO26 (task segment)",
            "sem_",
        ),
        "pose": LossKind("pose_loss", "keypoint loss", "keypoint", "pose_loss: keypoints (task pose)", "pose_"),
        "kobj": LossKind(
            "kobj_loss",
            "loss of the visibility",
            "visibility",
            "kobj_loss: visibility of keypoints (task pose)",
            "kobj_",
        ),
    }
)
# The training key of each kind but modifiers.
TERM_KEYS: Mapping[Kind, str] = MappingProxyType(
    {kind: declared.key for kind, declared in KINDS.items() if kind != "modifier"}
)
# Names that no loss may have, since they have another meaning as the value of a training key.
RESERVED = frozenset({"stock", "none", "off", "auto"})
# Prefixes of the keys of terms, of the assigner and of the run. The name of a third-party class or box loss, which is
# the prefix of its keys, must not start with any of them.
TERM_PREFIXES = (
    *dict.fromkeys(key.removesuffix("loss") for key in TERM_KEYS.values()),
    "dfl_",
    "tal_",
    "o2m_",
    "loss_",
)


def key_prefix(kind: Kind, name: str) -> str:
    """Return the prefix of the training keys of a loss: `focal_`, `seg_dice_`."""
    return f"{KINDS[kind].prefix}{name}_"


def page_name(kind: Kind, name: str) -> str:
    """Return the name of a loss that is unique among all kinds: `focal`, `seg_dice`, `classify_focal`."""
    return f"{KINDS[kind].page_prefix or KINDS[kind].prefix}{name}"


@dataclass(frozen=True)
class LossSpec:
    """A registered loss.

    Attributes:
        name: the name that selects it.
        kind: one of `KINDS`; a `modifier` is a prefix of the name of a box loss.
        module: its `nn.Module` class.
        aliases: other accepted spellings.
        source: the paper, and the code whose values it reproduces.
        summary: one-line description.
        parameters: declared parameters, in order.
        rotated: whether a box loss takes rotated boxes (`xywhr`) rather than axis-aligned ones.
        built_in: whether it is part of this package.
    """

    name: str
    kind: Kind
    module: type[Any]
    aliases: tuple[str, ...]
    source: str
    summary: str
    parameters: tuple[Parameter, ...]
    rotated: bool = False
    built_in: bool = True

    @property
    def group(self) -> str:
        """The group of the loss in listings: that of its kind, or `rotated`."""
        return "rotated" if self.rotated else KINDS[self.kind].group

    def build(self, values: Mapping[str, Value] = MappingProxyType({}), **options: Any) -> Any:
        """Return a module with the parameters in parsed training keys: `spec.build({"focal_gamma": 2.0})`."""
        chosen: dict[str, Any] = {p.name: values.get(p.key, p.default) for p in self.parameters}
        return self.module(**chosen, **options)
