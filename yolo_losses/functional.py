"""The losses as functions of tensors, and weights of classes.

The imports are written by `make tables`, and so is `functional.pyi`, which has the signatures.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

from yolo_losses import registry
from yolo_losses.config.class_weights import class_balanced_weights as class_balanced_weights
from yolo_losses.losses.angles.cos2 import cos2_angle_loss as cos2_angle_loss
from yolo_losses.losses.angles.sin2 import sin2_angle_loss as sin2_angle_loss
from yolo_losses.losses.boxes.ciou import ciou_loss as ciou_loss
from yolo_losses.losses.boxes.d_interp_iou import d_interp_iou_loss as d_interp_iou_loss
from yolo_losses.losses.boxes.diou import diou_loss as diou_loss
from yolo_losses.losses.boxes.eiou import eiou_loss as eiou_loss
from yolo_losses.losses.boxes.gcd import gcd_loss as gcd_loss
from yolo_losses.losses.boxes.giou import giou_loss as giou_loss
from yolo_losses.losses.boxes.gwd import gwd_loss as gwd_loss
from yolo_losses.losses.boxes.interp_iou import interp_iou_loss as interp_iou_loss
from yolo_losses.losses.boxes.iou import iou_loss as iou_loss
from yolo_losses.losses.boxes.kfiou import kfiou_loss as kfiou_loss
from yolo_losses.losses.boxes.kld import kld_loss as kld_loss
from yolo_losses.losses.boxes.mgiou import mgiou_loss as mgiou_loss
from yolo_losses.losses.boxes.mpdiou import mpdiou_loss as mpdiou_loss
from yolo_losses.losses.boxes.nwd import nwd_loss as nwd_loss
from yolo_losses.losses.boxes.piou import piou_loss as piou_loss
from yolo_losses.losses.boxes.piou2 import piou2_loss as piou2_loss
from yolo_losses.losses.boxes.probiou import probiou_loss as probiou_loss
from yolo_losses.losses.boxes.rotated_diou import rotated_diou_loss as rotated_diou_loss
from yolo_losses.losses.boxes.rotated_iou import rotated_iou_loss as rotated_iou_loss
from yolo_losses.losses.boxes.rotated_mgiou import rotated_mgiou_loss as rotated_mgiou_loss
from yolo_losses.losses.boxes.sdiou import sdiou_loss as sdiou_loss
from yolo_losses.losses.boxes.shape_iou import shape_iou_loss as shape_iou_loss
from yolo_losses.losses.boxes.siou import siou_loss as siou_loss
from yolo_losses.losses.boxes.wiou import wiou_loss as wiou_loss
from yolo_losses.losses.classification.asl import asymmetric_loss as asymmetric_loss
from yolo_losses.losses.classification.bce import bce_loss as bce_loss
from yolo_losses.losses.classification.efl import equalized_focal_loss as equalized_focal_loss
from yolo_losses.losses.classification.eqfl import equalized_quality_focal_loss as equalized_quality_focal_loss
from yolo_losses.losses.classification.focal import focal_loss as focal_loss
from yolo_losses.losses.classification.ghm import ghm_loss as ghm_loss
from yolo_losses.losses.classification.mal import matchability_loss as matchability_loss
from yolo_losses.losses.classification.poly import poly_focal_loss as poly_focal_loss
from yolo_losses.losses.classification.quality_focal import quality_focal_loss as quality_focal_loss
from yolo_losses.losses.classification.slide import slide_loss as slide_loss
from yolo_losses.losses.classification.varifocal import varifocal_loss as varifocal_loss
from yolo_losses.losses.classify.bce import one_vs_all_loss as one_vs_all_loss
from yolo_losses.losses.classify.ce import softmax_cross_entropy_loss as softmax_cross_entropy_loss
from yolo_losses.losses.classify.focal import softmax_focal_loss as softmax_focal_loss
from yolo_losses.losses.classify.gce import generalized_cross_entropy_loss as generalized_cross_entropy_loss
from yolo_losses.losses.classify.poly import softmax_poly_loss as softmax_poly_loss
from yolo_losses.losses.distances.l1 import l1_distance_loss as l1_distance_loss
from yolo_losses.losses.distances.smooth_l1 import smooth_l1_distance_loss as smooth_l1_distance_loss
from yolo_losses.losses.distribution.dfl import distribution_focal_loss as distribution_focal_loss
from yolo_losses.losses.keypoints.l1 import l1_keypoint_loss as l1_keypoint_loss
from yolo_losses.losses.keypoints.oks import oks_loss as oks_loss
from yolo_losses.losses.keypoints.smooth_l1 import smooth_l1_keypoint_loss as smooth_l1_keypoint_loss
from yolo_losses.losses.keypoints.wing import wing_loss as wing_loss
from yolo_losses.losses.masks.bce import mask_bce_loss as mask_bce_loss
from yolo_losses.losses.masks.bce_dice import bce_dice_loss as bce_dice_loss
from yolo_losses.losses.masks.dice import dice_loss as dice_loss
from yolo_losses.losses.masks.focal import mask_focal_loss as mask_focal_loss
from yolo_losses.losses.masks.lovasz import lovasz_hinge_loss as lovasz_hinge_loss
from yolo_losses.losses.masks.tversky import tversky_loss as tversky_loss
from yolo_losses.losses.semantic.ce import pixel_cross_entropy_loss as pixel_cross_entropy_loss
from yolo_losses.losses.semantic.dice import softmax_dice_loss as softmax_dice_loss
from yolo_losses.losses.semantic.focal import pixel_focal_loss as pixel_focal_loss
from yolo_losses.losses.semantic.lovasz import lovasz_softmax_loss as lovasz_softmax_loss
from yolo_losses.losses.semantic.ohem import ohem_cross_entropy_loss as ohem_cross_entropy_loss
from yolo_losses.losses.semantic.tversky import softmax_tversky_loss as softmax_tversky_loss
from yolo_losses.losses.visibility.focal import visibility_focal_loss as visibility_focal_loss


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return __dir__()
    functions = _registered()
    if name not in functions:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{registry.did_you_mean(name, __dir__())}")
    return functions[name]


def __dir__() -> list[str]:
    own = (name for name, value in globals().items() if isinstance(value, FunctionType) and not name.startswith("_"))
    return sorted({*own, *_registered()})


def _registered() -> dict[str, Any]:
    """Return the formulas of the registered losses, those of plugins too, by name; the first of a name."""
    found: dict[str, Any] = {}
    for spec in registry.specs():
        name = getattr(spec.module.formula, "__name__", "")
        if name.isidentifier() and not name.startswith("_"):  # not that of a lambda
            found.setdefault(name, spec.module.formula)
    return found
