"""Losses that users look for and that are left out on purpose, with alternatives; `docs/traps.md` has the reasons."""

from __future__ import annotations

from dataclasses import dataclass

PAGE = "https://github.com/yolo-losses/yolo-losses/blob/main/docs/traps.md"


@dataclass(frozen=True)
class Trap:
    """A loss that is left out.

    Attributes:
        name: name of its section in `docs/traps.md`.
        aliases: other spellings, without `_`.
        instead: the recommended alternative, as a training key.
        reason: why it is left out.
    """

    name: str
    aliases: tuple[str, ...]
    instead: str
    reason: str

    @property
    def advice(self) -> str:
        """The reason, the alternative and the page, for a message."""
        return f"{self.reason}; the nearest sound choice is {self.instead}, see {PAGE}#{self.name}"


TRAPS = (
    Trap(
        "eqlv2",
        ("eql", "eqloss", "eqlloss", "eqlv2loss", "equalizationloss", "equalizationlossv2"),
        "cls_loss=efl",
        "EQL v2 does not work for one-stage detectors, as its author says; his loss for these is EFL",
    ),
    Trap(
        "atfl",
        ("atflloss", "adaptivethresholdfocal", "adaptivethresholdfocalloss"),
        "cls_loss=focal",
        "the ATFL that circulates averages nothing, is near BCE on easy anchors, and its factor is unbounded",
    ),
    Trap(
        "slidevarifocal",
        ("slidevarifocalloss", "slidevfl", "slidevflloss", "emaslidevarifocal", "emaslidevarifocalloss"),
        "cls_loss=vfl",
        "no paper defines Slide-Varifocal, whose two weights act against each other: choose vfl or slide",
    ),
    Trap(
        "seesaw",
        ("seesawloss", "seesawce"),
        "cls_loss=efl",
        "Seesaw loss is for a softmax over classes that exclude each other, which no YOLO head has",
    ),
    Trap(
        "iciou",
        ("iciouloss", "improvedciou"),
        "box_loss=eiou",
        "ICIoU has no code by its authors that values can be checked against (Inner-CIoU is inner_ciou)",
    ),
    Trap(
        "uiou",
        ("uiouloss", "unifiediou", "unifiediouloss"),
        "box_loss=inner_ciou",
        "the published code of Unified-IoU trains with plain CIoU, and its schedule is for 300 epochs alone",
    ),
)


def find(name: str) -> Trap | None:
    """Return the left-out loss that a name ends with, or `None`.

    Args:
        name: a name in lower case, with `_` between words.
    """
    words = name.split("_")
    endings = {"".join(words[start:]) for start in range(len(words))}
    return next((trap for trap in TRAPS if endings.intersection((trap.name, *trap.aliases))), None)
