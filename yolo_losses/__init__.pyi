# Written by `make tables` from the declarations of the losses.

from torch import Tensor

from yolo_losses import functional as functional
from yolo_losses.comparison import compare as compare
from yolo_losses.config.settings import LossSettings as LossSettings
from yolo_losses.integration.criteria import equip as equip
from yolo_losses.integration.hook import install as install
from yolo_losses.integration.patching import uninstall as uninstall
from yolo_losses.integration.task_losses import DetectionLoss as DetectionLoss
from yolo_losses.integration.task_losses import OBBLoss as OBBLoss
from yolo_losses.integration.task_losses import PoseLoss as PoseLoss
from yolo_losses.integration.task_losses import SegmentationLoss as SegmentationLoss
from yolo_losses.losses.angles.cos2 import Cos2AngleLoss as _Cos2AngleLoss
from yolo_losses.losses.angles.sin2 import Sin2AngleLoss as _Sin2AngleLoss
from yolo_losses.losses.auxiliary_masks.bce import AuxiliaryBCELoss as _AuxiliaryBCELoss
from yolo_losses.losses.auxiliary_masks.bce_dice import AuxiliaryBCEDiceLoss as _AuxiliaryBCEDiceLoss
from yolo_losses.losses.auxiliary_masks.dice import AuxiliaryDiceLoss as _AuxiliaryDiceLoss
from yolo_losses.losses.auxiliary_masks.focal import AuxiliaryFocalLoss as _AuxiliaryFocalLoss
from yolo_losses.losses.auxiliary_masks.tversky import AuxiliaryTverskyLoss as _AuxiliaryTverskyLoss
from yolo_losses.losses.boxes._base import register_box_loss as register_box_loss
from yolo_losses.losses.boxes.ciou import CIoULoss as _CIoULoss
from yolo_losses.losses.boxes.d_interp_iou import DynamicInterpIoULoss as _DynamicInterpIoULoss
from yolo_losses.losses.boxes.diou import DIoULoss as _DIoULoss
from yolo_losses.losses.boxes.eiou import EIoULoss as _EIoULoss
from yolo_losses.losses.boxes.gcd import GCDLoss as _GCDLoss
from yolo_losses.losses.boxes.giou import GIoULoss as _GIoULoss
from yolo_losses.losses.boxes.gwd import GWDLoss as _GWDLoss
from yolo_losses.losses.boxes.interp_iou import InterpIoULoss as _InterpIoULoss
from yolo_losses.losses.boxes.iou import IoULoss as _IoULoss
from yolo_losses.losses.boxes.kfiou import KFIoULoss as _KFIoULoss
from yolo_losses.losses.boxes.kld import KLDLoss as _KLDLoss
from yolo_losses.losses.boxes.mgiou import MGIoULoss as _MGIoULoss
from yolo_losses.losses.boxes.mpdiou import MPDIoULoss as _MPDIoULoss
from yolo_losses.losses.boxes.nwd import NWDLoss as _NWDLoss
from yolo_losses.losses.boxes.piou import PIoULoss as _PIoULoss
from yolo_losses.losses.boxes.piou2 import PIoU2Loss as _PIoU2Loss
from yolo_losses.losses.boxes.probiou import ProbIoULoss as _ProbIoULoss
from yolo_losses.losses.boxes.rotated_diou import RotatedDIoULoss as _RotatedDIoULoss
from yolo_losses.losses.boxes.rotated_iou import RotatedIoULoss as _RotatedIoULoss
from yolo_losses.losses.boxes.rotated_mgiou import RotatedMGIoULoss as _RotatedMGIoULoss
from yolo_losses.losses.boxes.sdiou import SDIoULoss as _SDIoULoss
from yolo_losses.losses.boxes.shape_iou import ShapeIoULoss as _ShapeIoULoss
from yolo_losses.losses.boxes.siou import SIoULoss as _SIoULoss
from yolo_losses.losses.boxes.wiou import WIoULoss as _WIoULoss
from yolo_losses.losses.build import list_losses as list_losses
from yolo_losses.losses.build import make_box_loss as make_box_loss
from yolo_losses.losses.build import make_classify_loss as make_classify_loss
from yolo_losses.losses.build import make_cls_loss as make_cls_loss
from yolo_losses.losses.build import make_loss as make_loss
from yolo_losses.losses.build import make_pixel_loss as make_pixel_loss
from yolo_losses.losses.build import make_region_loss as make_region_loss
from yolo_losses.losses.build import make_seg_loss as make_seg_loss
from yolo_losses.losses.classification._base import register_cls_loss as register_cls_loss
from yolo_losses.losses.classification.asl import AsymmetricLoss as _AsymmetricLoss
from yolo_losses.losses.classification.bce import BCELoss as _BCELoss
from yolo_losses.losses.classification.efl import EqualizedFocalLoss as _EqualizedFocalLoss
from yolo_losses.losses.classification.ema_slide import EMASlideLoss as _EMASlideLoss
from yolo_losses.losses.classification.eqfl import EqualizedQualityFocalLoss as _EqualizedQualityFocalLoss
from yolo_losses.losses.classification.focal import FocalLoss as _FocalLoss
from yolo_losses.losses.classification.ghm import GHMLoss as _GHMLoss
from yolo_losses.losses.classification.mal import MatchabilityLoss as _MatchabilityLoss
from yolo_losses.losses.classification.poly import PolyLoss as _PolyLoss
from yolo_losses.losses.classification.quality_focal import QualityFocalLoss as _QualityFocalLoss
from yolo_losses.losses.classification.slide import SlideLoss as _SlideLoss
from yolo_losses.losses.classification.varifocal import VarifocalLoss as _VarifocalLoss
from yolo_losses.losses.classify.bce import OneVsAllLoss as _OneVsAllLoss
from yolo_losses.losses.classify.ce import SoftmaxCrossEntropyLoss as _SoftmaxCrossEntropyLoss
from yolo_losses.losses.classify.focal import SoftmaxFocalLoss as _SoftmaxFocalLoss
from yolo_losses.losses.classify.gce import GeneralizedCrossEntropyLoss as _GeneralizedCrossEntropyLoss
from yolo_losses.losses.classify.poly import SoftmaxPolyLoss as _SoftmaxPolyLoss
from yolo_losses.losses.distances.l1 import L1DistanceLoss as _L1DistanceLoss
from yolo_losses.losses.distances.smooth_l1 import SmoothL1DistanceLoss as _SmoothL1DistanceLoss
from yolo_losses.losses.distribution.dfl import DistributionFocalLoss as _DistributionFocalLoss
from yolo_losses.losses.keypoints.l1 import L1KeypointLoss as _L1KeypointLoss
from yolo_losses.losses.keypoints.oks import OKSLoss as _OKSLoss
from yolo_losses.losses.keypoints.smooth_l1 import SmoothL1KeypointLoss as _SmoothL1KeypointLoss
from yolo_losses.losses.keypoints.wing import WingLoss as _WingLoss
from yolo_losses.losses.masks._base import register_seg_loss as register_seg_loss
from yolo_losses.losses.masks.bce import MaskBCELoss as _MaskBCELoss
from yolo_losses.losses.masks.bce_dice import BCEDiceLoss as _BCEDiceLoss
from yolo_losses.losses.masks.dice import DiceLoss as _DiceLoss
from yolo_losses.losses.masks.focal import MaskFocalLoss as _MaskFocalLoss
from yolo_losses.losses.masks.lovasz import LovaszHingeLoss as _LovaszHingeLoss
from yolo_losses.losses.masks.tversky import TverskyLoss as _TverskyLoss
from yolo_losses.losses.semantic.ce import PixelCrossEntropyLoss as _PixelCrossEntropyLoss
from yolo_losses.losses.semantic.dice import SoftmaxDiceLoss as _SoftmaxDiceLoss
from yolo_losses.losses.semantic.focal import PixelFocalLoss as _PixelFocalLoss
from yolo_losses.losses.semantic.lovasz import LovaszSoftmaxLoss as _LovaszSoftmaxLoss
from yolo_losses.losses.semantic.ohem import OHEMCrossEntropyLoss as _OHEMCrossEntropyLoss
from yolo_losses.losses.semantic.tversky import SoftmaxTverskyLoss as _SoftmaxTverskyLoss
from yolo_losses.losses.visibility.bce import VisibilityBCELoss as _VisibilityBCELoss
from yolo_losses.losses.visibility.focal import VisibilityFocalLoss as _VisibilityFocalLoss
from yolo_losses.plots import show as show
from yolo_losses.recommendation import recommend as recommend
from yolo_losses.registry.parameters import Param as Param

__version__: str

class AsymmetricLoss(_AsymmetricLoss):
    def __init__(
        self,
        gamma_pos: float = 1.0,
        gamma_neg: float = 4.0,
        shift: float = 0.05,
        detach_weight: bool = True,
        *,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None: ...

class AuxiliaryBCEDiceLoss(_AuxiliaryBCEDiceLoss):
    def __init__(
        self, ratio: float = 0.5, smooth: float = 1.0, *, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None: ...

class AuxiliaryBCELoss(_AuxiliaryBCELoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class AuxiliaryDiceLoss(_AuxiliaryDiceLoss):
    def __init__(self, smooth: float = 1.0, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class AuxiliaryFocalLoss(_AuxiliaryFocalLoss):
    def __init__(
        self, gamma: float = 1.5, alpha: float | None = 0.25, *, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None: ...

class AuxiliaryTverskyLoss(_AuxiliaryTverskyLoss):
    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        smooth: float = 1.0,
        gamma: float = 1.0,
        *,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None: ...

class BCEDiceLoss(_BCEDiceLoss):
    def __init__(
        self, ratio: float = 0.5, smooth: float = 1.0, *, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None: ...

class BCELoss(_BCELoss):
    def __init__(
        self,
        *,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        activated: bool = False,
        weight: Tensor | None = None,
        pos_weight: Tensor | float | None = None,
    ) -> None: ...

class CIoULoss(_CIoULoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class Cos2AngleLoss(_Cos2AngleLoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class DIoULoss(_DIoULoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class DiceLoss(_DiceLoss):
    def __init__(self, smooth: float = 1.0, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class DistributionFocalLoss(_DistributionFocalLoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class DynamicInterpIoULoss(_DynamicInterpIoULoss):
    def __init__(
        self, low: float = 0.6, high: float = 0.99, *, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None: ...

class EIoULoss(_EIoULoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class EMASlideLoss(_EMASlideLoss):
    def __init__(
        self,
        delta: float = 0.1,
        min_iou: float = 0.2,
        decay: float = 0.999,
        tau: float = 2000.0,
        *,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None: ...

class EqualizedFocalLoss(_EqualizedFocalLoss):
    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | None = 0.25,
        scale: float = 8.0,
        *,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None: ...

class EqualizedQualityFocalLoss(_EqualizedQualityFocalLoss):
    def __init__(
        self,
        gamma: float = 2.0,
        scale: float = 8.0,
        *,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None: ...

class FocalLoss(_FocalLoss):
    def __init__(
        self,
        gamma: float = 1.5,
        alpha: float | None = 0.25,
        *,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None: ...

class GCDLoss(_GCDLoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class GHMLoss(_GHMLoss):
    def __init__(
        self,
        bins: int = 10,
        momentum: float = 0.75,
        *,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None: ...

class GIoULoss(_GIoULoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class GWDLoss(_GWDLoss):
    def __init__(
        self,
        fun: str = "log1p",
        tau: float = 1.0,
        alpha: float = 1.0,
        normalize: bool = True,
        *,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None: ...

class GeneralizedCrossEntropyLoss(_GeneralizedCrossEntropyLoss):
    def __init__(self, q: float = 0.7, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class InterpIoULoss(_InterpIoULoss):
    def __init__(self, alpha: float = 0.98, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class IoULoss(_IoULoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class KFIoULoss(_KFIoULoss):
    def __init__(
        self, fun: str = "none", centre: str = "size", *, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None: ...

class KLDLoss(_KLDLoss):
    def __init__(
        self,
        fun: str = "log1p",
        tau: float = 1.0,
        alpha: float = 1.0,
        sqrt: bool = False,
        *,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None: ...

class L1DistanceLoss(_L1DistanceLoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class L1KeypointLoss(_L1KeypointLoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class LovaszHingeLoss(_LovaszHingeLoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class LovaszSoftmaxLoss(_LovaszSoftmaxLoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class MGIoULoss(_MGIoULoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class MPDIoULoss(_MPDIoULoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class MaskBCELoss(_MaskBCELoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class MaskFocalLoss(_MaskFocalLoss):
    def __init__(
        self, gamma: float = 1.5, alpha: float | None = 0.25, *, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None: ...

class MatchabilityLoss(_MatchabilityLoss):
    def __init__(
        self, gamma: float = 1.5, *, reduction: str = "mean", loss_weight: float = 1.0, activated: bool = False
    ) -> None: ...

class NWDLoss(_NWDLoss):
    def __init__(
        self, constant: float = 12.8, ratio: float = 0.5, *, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None: ...

class OHEMCrossEntropyLoss(_OHEMCrossEntropyLoss):
    def __init__(
        self, threshold: float = 0.7, keep: float = 0.0625, *, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None: ...

class OKSLoss(_OKSLoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class OneVsAllLoss(_OneVsAllLoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class PIoU2Loss(_PIoU2Loss):
    def __init__(self, lambda_: float = 1.3, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class PIoULoss(_PIoULoss):
    def __init__(self, lambda_: float = 1.3, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class PixelCrossEntropyLoss(_PixelCrossEntropyLoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class PixelFocalLoss(_PixelFocalLoss):
    def __init__(self, gamma: float = 2.0, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class PolyLoss(_PolyLoss):
    def __init__(
        self,
        epsilon: float = 1.0,
        gamma: float = 2.0,
        alpha: float | None = 0.25,
        *,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None: ...

class ProbIoULoss(_ProbIoULoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class QualityFocalLoss(_QualityFocalLoss):
    def __init__(
        self,
        beta: float = 2.0,
        alpha: float | None = None,
        *,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None: ...

class RotatedDIoULoss(_RotatedDIoULoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class RotatedIoULoss(_RotatedIoULoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class RotatedMGIoULoss(_RotatedMGIoULoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class SDIoULoss(_SDIoULoss):
    def __init__(self, delta: float = 0.5, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class SIoULoss(_SIoULoss):
    def __init__(self, theta: float = 4.0, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class ShapeIoULoss(_ShapeIoULoss):
    def __init__(self, scale: float = 0.0, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class Sin2AngleLoss(_Sin2AngleLoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class SlideLoss(_SlideLoss):
    def __init__(
        self,
        delta: float = 0.1,
        min_iou: float = 0.2,
        *,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None: ...

class SmoothL1DistanceLoss(_SmoothL1DistanceLoss):
    def __init__(self, beta: float = 0.01, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class SmoothL1KeypointLoss(_SmoothL1KeypointLoss):
    def __init__(self, beta: float = 0.1, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class SoftmaxCrossEntropyLoss(_SoftmaxCrossEntropyLoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class SoftmaxDiceLoss(_SoftmaxDiceLoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class SoftmaxFocalLoss(_SoftmaxFocalLoss):
    def __init__(self, gamma: float = 1.5, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class SoftmaxPolyLoss(_SoftmaxPolyLoss):
    def __init__(self, epsilon: float = 1.0, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class SoftmaxTverskyLoss(_SoftmaxTverskyLoss):
    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 1.0,
        *,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None: ...

class TverskyLoss(_TverskyLoss):
    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        smooth: float = 1.0,
        gamma: float = 1.0,
        *,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None: ...

class VarifocalLoss(_VarifocalLoss):
    def __init__(
        self,
        alpha: float = 0.75,
        gamma: float = 2.0,
        iou_weighted: bool = True,
        detach_weight: bool = False,
        *,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None: ...

class VisibilityBCELoss(_VisibilityBCELoss):
    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None: ...

class VisibilityFocalLoss(_VisibilityFocalLoss):
    def __init__(
        self, gamma: float = 1.5, alpha: float | None = -1.0, *, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None: ...

class WIoULoss(_WIoULoss):
    def __init__(
        self,
        version: int = 3,
        alpha: float = 1.9,
        delta: float = 3.0,
        momentum: float = 0.01,
        *,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None: ...

class WingLoss(_WingLoss):
    def __init__(
        self, w: float = 10.0, epsilon: float = 2.0, *, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None: ...
