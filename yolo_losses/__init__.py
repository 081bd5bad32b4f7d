"""Pick the loss of an Ultralytics YOLO by name: `yolo train ... cls_loss=slide box_loss=inner_siou`.

Importing the package makes Ultralytics know its training keys. The public names are imported when they are asked for;
`__init__.pyi` has their signatures.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from yolo_losses.integration import hook as _hook

__version__ = "0.1.0"

if TYPE_CHECKING:  # written by `make tables`
    from yolo_losses.comparison import compare as compare
    from yolo_losses.config.settings import LossSettings as LossSettings
    from yolo_losses.integration.criteria import equip as equip
    from yolo_losses.integration.hook import install as install
    from yolo_losses.integration.patching import uninstall as uninstall
    from yolo_losses.integration.task_losses import DetectionLoss as DetectionLoss
    from yolo_losses.integration.task_losses import OBBLoss as OBBLoss
    from yolo_losses.integration.task_losses import PoseLoss as PoseLoss
    from yolo_losses.integration.task_losses import SegmentationLoss as SegmentationLoss
    from yolo_losses.losses.angles.cos2 import Cos2AngleLoss as Cos2AngleLoss
    from yolo_losses.losses.angles.sin2 import Sin2AngleLoss as Sin2AngleLoss
    from yolo_losses.losses.auxiliary_masks.bce import AuxiliaryBCELoss as AuxiliaryBCELoss
    from yolo_losses.losses.auxiliary_masks.bce_dice import AuxiliaryBCEDiceLoss as AuxiliaryBCEDiceLoss
    from yolo_losses.losses.auxiliary_masks.dice import AuxiliaryDiceLoss as AuxiliaryDiceLoss
    from yolo_losses.losses.auxiliary_masks.focal import AuxiliaryFocalLoss as AuxiliaryFocalLoss
    from yolo_losses.losses.auxiliary_masks.tversky import AuxiliaryTverskyLoss as AuxiliaryTverskyLoss
    from yolo_losses.losses.boxes._base import register_box_loss as register_box_loss
    from yolo_losses.losses.boxes.ciou import CIoULoss as CIoULoss
    from yolo_losses.losses.boxes.d_interp_iou import DynamicInterpIoULoss as DynamicInterpIoULoss
    from yolo_losses.losses.boxes.diou import DIoULoss as DIoULoss
    from yolo_losses.losses.boxes.eiou import EIoULoss as EIoULoss
    from yolo_losses.losses.boxes.gcd import GCDLoss as GCDLoss
    from yolo_losses.losses.boxes.giou import GIoULoss as GIoULoss
    from yolo_losses.losses.boxes.gwd import GWDLoss as GWDLoss
    from yolo_losses.losses.boxes.interp_iou import InterpIoULoss as InterpIoULoss
    from yolo_losses.losses.boxes.iou import IoULoss as IoULoss
    from yolo_losses.losses.boxes.kfiou import KFIoULoss as KFIoULoss
    from yolo_losses.losses.boxes.kld import KLDLoss as KLDLoss
    from yolo_losses.losses.boxes.mgiou import MGIoULoss as MGIoULoss
    from yolo_losses.losses.boxes.mpdiou import MPDIoULoss as MPDIoULoss
    from yolo_losses.losses.boxes.nwd import NWDLoss as NWDLoss
    from yolo_losses.losses.boxes.piou import PIoULoss as PIoULoss
    from yolo_losses.losses.boxes.piou2 import PIoU2Loss as PIoU2Loss
    from yolo_losses.losses.boxes.probiou import ProbIoULoss as ProbIoULoss
    from yolo_losses.losses.boxes.rotated_diou import RotatedDIoULoss as RotatedDIoULoss
    from yolo_losses.losses.boxes.rotated_iou import RotatedIoULoss as RotatedIoULoss
    from yolo_losses.losses.boxes.rotated_mgiou import RotatedMGIoULoss as RotatedMGIoULoss
    from yolo_losses.losses.boxes.sdiou import SDIoULoss as SDIoULoss
    from yolo_losses.losses.boxes.shape_iou import ShapeIoULoss as ShapeIoULoss
    from yolo_losses.losses.boxes.siou import SIoULoss as SIoULoss
    from yolo_losses.losses.boxes.wiou import WIoULoss as WIoULoss
    from yolo_losses.losses.build import list_losses as list_losses
    from yolo_losses.losses.build import make_box_loss as make_box_loss
    from yolo_losses.losses.build import make_classify_loss as make_classify_loss
    from yolo_losses.losses.build import make_cls_loss as make_cls_loss
    from yolo_losses.losses.build import make_loss as make_loss
    from yolo_losses.losses.build import make_pixel_loss as make_pixel_loss
    from yolo_losses.losses.build import make_region_loss as make_region_loss
    from yolo_losses.losses.build import make_seg_loss as make_seg_loss
    from yolo_losses.losses.classification._base import register_cls_loss as register_cls_loss
    from yolo_losses.losses.classification.asl import AsymmetricLoss as AsymmetricLoss
    from yolo_losses.losses.classification.bce import BCELoss as BCELoss
    from yolo_losses.losses.classification.efl import EqualizedFocalLoss as EqualizedFocalLoss
    from yolo_losses.losses.classification.ema_slide import EMASlideLoss as EMASlideLoss
    from yolo_losses.losses.classification.eqfl import EqualizedQualityFocalLoss as EqualizedQualityFocalLoss
    from yolo_losses.losses.classification.focal import FocalLoss as FocalLoss
    from yolo_losses.losses.classification.ghm import GHMLoss as GHMLoss
    from yolo_losses.losses.classification.mal import MatchabilityLoss as MatchabilityLoss
    from yolo_losses.losses.classification.poly import PolyLoss as PolyLoss
    from yolo_losses.losses.classification.quality_focal import QualityFocalLoss as QualityFocalLoss
    from yolo_losses.losses.classification.slide import SlideLoss as SlideLoss
    from yolo_losses.losses.classification.varifocal import VarifocalLoss as VarifocalLoss
    from yolo_losses.losses.classify.bce import OneVsAllLoss as OneVsAllLoss
    from yolo_losses.losses.classify.ce import SoftmaxCrossEntropyLoss as SoftmaxCrossEntropyLoss
    from yolo_losses.losses.classify.focal import SoftmaxFocalLoss as SoftmaxFocalLoss
    from yolo_losses.losses.classify.gce import GeneralizedCrossEntropyLoss as GeneralizedCrossEntropyLoss
    from yolo_losses.losses.classify.poly import SoftmaxPolyLoss as SoftmaxPolyLoss
    from yolo_losses.losses.distances.l1 import L1DistanceLoss as L1DistanceLoss
    from yolo_losses.losses.distances.smooth_l1 import SmoothL1DistanceLoss as SmoothL1DistanceLoss
    from yolo_losses.losses.distribution.dfl import DistributionFocalLoss as DistributionFocalLoss
    from yolo_losses.losses.keypoints.l1 import L1KeypointLoss as L1KeypointLoss
    from yolo_losses.losses.keypoints.oks import OKSLoss as OKSLoss
    from yolo_losses.losses.keypoints.smooth_l1 import SmoothL1KeypointLoss as SmoothL1KeypointLoss
    from yolo_losses.losses.keypoints.wing import WingLoss as WingLoss
    from yolo_losses.losses.masks._base import register_seg_loss as register_seg_loss
    from yolo_losses.losses.masks.bce import MaskBCELoss as MaskBCELoss
    from yolo_losses.losses.masks.bce_dice import BCEDiceLoss as BCEDiceLoss
    from yolo_losses.losses.masks.dice import DiceLoss as DiceLoss
    from yolo_losses.losses.masks.focal import MaskFocalLoss as MaskFocalLoss
    from yolo_losses.losses.masks.lovasz import LovaszHingeLoss as LovaszHingeLoss
    from yolo_losses.losses.masks.tversky import TverskyLoss as TverskyLoss
    from yolo_losses.losses.semantic.ce import PixelCrossEntropyLoss as PixelCrossEntropyLoss
    from yolo_losses.losses.semantic.dice import SoftmaxDiceLoss as SoftmaxDiceLoss
    from yolo_losses.losses.semantic.focal import PixelFocalLoss as PixelFocalLoss
    from yolo_losses.losses.semantic.lovasz import LovaszSoftmaxLoss as LovaszSoftmaxLoss
    from yolo_losses.losses.semantic.ohem import OHEMCrossEntropyLoss as OHEMCrossEntropyLoss
    from yolo_losses.losses.semantic.tversky import SoftmaxTverskyLoss as SoftmaxTverskyLoss
    from yolo_losses.losses.visibility.bce import VisibilityBCELoss as VisibilityBCELoss
    from yolo_losses.losses.visibility.focal import VisibilityFocalLoss as VisibilityFocalLoss
    from yolo_losses.plots import show as show
    from yolo_losses.recommendation import recommend as recommend
    from yolo_losses.registry.parameters import Param as Param

# Where the public names are defined that no loss is registered with.
_HOMES = {
    "LossSettings": "config.settings",
    "Param": "registry.parameters",
    "register_cls_loss": "losses.classification._base",
    "register_box_loss": "losses.boxes._base",
    "register_seg_loss": "losses.masks._base",
    "list_losses": "losses.build",
    "make_cls_loss": "losses.build",
    "make_box_loss": "losses.build",
    "make_classify_loss": "losses.build",
    "make_seg_loss": "losses.build",
    "make_loss": "losses.build",
    "make_pixel_loss": "losses.build",
    "make_region_loss": "losses.build",
    "show": "plots",
    "equip": "integration.criteria",
    "compare": "comparison",
    "DistributionFocalLoss": "losses.distribution.dfl",
    "recommend": "recommendation",
    "DetectionLoss": "integration.task_losses",
    "SegmentationLoss": "integration.task_losses",
    "PoseLoss": "integration.task_losses",
    "OBBLoss": "integration.task_losses",
    "install": "integration.hook",
    "uninstall": "integration.hook",
}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return __dir__()
    if name == "functional":
        return importlib.import_module(f"{__name__}.functional")
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name.endswith("Loss") and name in (modules := _registered()):
        return modules[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({"__version__", "functional", *_HOMES, *_registered()})


def _registered() -> dict[str, Any]:
    """Return the modules of the registered losses, those of plugins too, by name."""
    from yolo_losses import registry

    return {spec.module.__name__: spec.module for spec in registry.specs() if spec.kind != "modifier"}


_hook.install()
