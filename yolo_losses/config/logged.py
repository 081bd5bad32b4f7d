"""The logged terms without a key of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

WITHOUT_KEY: Mapping[str, str] = MappingProxyType(
    {
        "loss": "classify: the one term, `cls_loss`",
        "giou_loss": "RT-DETR: its box term, `box_loss`",
        "aux_loss": "semantic: the term of the auxiliary head, which takes `ce_loss`",
        "rle_loss": "pose on YOLO26: no key",
        "dlog_loss": "depth: no key",
        "dgrad_loss": "depth: no key",
        "dis_loss": "distillation: no key",
    }
)
