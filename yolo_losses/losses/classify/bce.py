"""Binary cross-entropy of each class against all others."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.classify._base import IMAGES, ClassifyLoss, as_probabilities, sum_over_classes


@loss_function(IMAGES)
def one_vs_all_loss(
    logits: Tensor, targets: Tensor, smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy of each class against all others, averaged over the classes, per image.

    Formula:
        L = sum(w BCE)/C
        BCE = -t log(s) - (1-t) log(1-s)
        s = 1/(1 + e^(-z))

    Args:
        logits: shape `(N, C)`.
        targets: labels, shape `(N,)`, or probabilities, shape `(N, C)`.
        smoothing: the share of each target that is spread evenly over all classes, in [0, 1).
        class_weights: one for each class, shape `(C,)`.

    Returns:
        At least 0, shape `(N,)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import one_vs_all_loss
        >>> one_vs_all_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor([0.4100])

    Source:
        Wightman et al., arXiv 2110.00476, equal to timm's `BinaryCrossEntropy`, which averages over classes and images.
        Smoothing sets the targets of the other classes to `smoothing / C`, as there.

    See also:
        classify_ce: classes that exclude each other
    """
    t = as_probabilities(targets, logits, smoothing)
    loss = nn.functional.binary_cross_entropy_with_logits(logits, t, reduction="none")
    return sum_over_classes(loss, class_weights) / max(logits.shape[1], 1)


@declares(
    "classify",
    ClassifyLoss,
    "bce",
    summary="Binary cross-entropy of each class against all others",
    aliases=("one_vs_all", "binary_cross_entropy", "bceloss"),
    source="arXiv 2110.00476; timm",
)
class OneVsAllLoss(ClassifyLoss):
    """Binary cross-entropy of each class against all others."""

    formula: ClassVar[Formula] = staticmethod(one_vs_all_loss)

    def mean_over_images(self, loss: Tensor, targets: Tensor, class_weights: Tensor | None) -> Tensor:
        """Return the mean over images; class weights count by their mean, since every image has every class."""
        mean = loss.sum() / max(len(loss), 1)
        return mean if class_weights is None else mean / class_weights.mean()
