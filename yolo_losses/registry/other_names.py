"""Names of losses in other code bases, and the corresponding training keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from yolo_losses.registry.parameters import normalize_name

# By name in lower case, without `_` and without `loss` at the end.
CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **dict.fromkeys(("gfl", "gfocal", "generalizedfocal"), ("cls_loss=qfl",)),
        **dict.fromkeys(("sigmoidfocal", "focalbce", "fl"), ("cls_loss=focal",)),
        **dict.fromkeys(("bcewithlogits", "binarycrossentropy", "logistic"), ("cls_loss=bce",)),
        **dict.fromkeys(("dfl", "distributionfocal"), ("dfl_loss=dfl",)),
        **dict.fromkeys(("classbalanced", "cb", "weightedbce"), ("cls_weights=balanced",)),
        **dict.fromkeys(("tood", "taskaligned"), ("cls_target=tal",)),
        "gd": ("box_loss=gwd", "box_loss=kld"),
        "gdlossv1": ("box_loss=gwd", "box_loss=kld"),
        "gaussiandistribution": ("box_loss=gwd", "box_loss=kld"),
        "kf": ("box_loss=kfiou",),
    }
)


def choices(name: str) -> tuple[str, ...]:
    """Return the training keys for a name in other code bases; empty if it is unknown."""
    word = normalize_name(name).replace("_", "")
    return CHOICES.get(word) or CHOICES.get(word.removesuffix("loss"), ())


def hint(meant: Sequence[str]) -> str:
    """Return ` Did you mean 'x' or 'y'?`, or an empty string if `meant` is empty."""
    return f" Did you mean {' or '.join(map(repr, meant))}?" if meant else ""
