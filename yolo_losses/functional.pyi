# Written by `make tables` from the declarations of the losses.

from torch import Tensor

from yolo_losses.config.class_weights import class_balanced_weights as class_balanced_weights

def asymmetric_loss(
    logits: Tensor,
    targets: Tensor,
    gamma_pos: float = 1.0,
    gamma_neg: float = 4.0,
    shift: float = 0.05,
    detach_weight: bool = True,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def bce_dice_loss(
    logits: Tensor,
    targets: Tensor,
    ratio: float = 0.5,
    smooth: float = 1.0,
    area: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def bce_loss(
    logits: Tensor,
    targets: Tensor,
    pos_weight: Tensor | float | None = None,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def ciou_loss(
    pred: Tensor,
    target: Tensor,
    eps: float = 1e-07,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def cos2_angle_loss(
    pred: Tensor,
    target: Tensor,
    lambda_: float = 3.0,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def d_interp_iou_loss(
    pred: Tensor,
    target: Tensor,
    low: float = 0.6,
    high: float = 0.99,
    eps: float = 1e-07,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def dice_loss(
    logits: Tensor,
    targets: Tensor,
    smooth: float = 1.0,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def diou_loss(
    pred: Tensor,
    target: Tensor,
    eps: float = 1e-07,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def distribution_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def eiou_loss(
    pred: Tensor,
    target: Tensor,
    eps: float = 1e-07,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def equalized_focal_loss(
    logits: Tensor,
    targets: Tensor,
    pos_neg_ratio: Tensor,
    gamma: float = 2.0,
    alpha: float | None = 0.25,
    scale: float = 8.0,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def equalized_quality_focal_loss(
    logits: Tensor,
    targets: Tensor,
    pos_neg_ratio: Tensor,
    gamma: float = 2.0,
    scale: float = 8.0,
    positive_mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def focal_loss(
    logits: Tensor,
    targets: Tensor,
    gamma: float = 1.5,
    alpha: float | None = 0.25,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def gcd_loss(
    pred: Tensor,
    target: Tensor,
    eps: float = 1e-06,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def generalized_cross_entropy_loss(
    logits: Tensor,
    targets: Tensor,
    q: float = 0.7,
    class_weights: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def ghm_loss(
    logits: Tensor,
    targets: Tensor,
    bins: int = 10,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def giou_loss(
    pred: Tensor,
    target: Tensor,
    eps: float = 1e-07,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def gwd_loss(
    pred: Tensor,
    target: Tensor,
    fun: str = "log1p",
    tau: float = 1.0,
    alpha: float = 1.0,
    normalize: bool = True,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def interp_iou_loss(
    pred: Tensor,
    target: Tensor,
    alpha: float = 0.98,
    eps: float = 1e-07,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def iou_loss(
    pred: Tensor,
    target: Tensor,
    eps: float = 1e-07,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def kfiou_loss(
    pred: Tensor,
    target: Tensor,
    fun: str = "none",
    centre: str = "size",
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def kld_loss(
    pred: Tensor,
    target: Tensor,
    fun: str = "log1p",
    tau: float = 1.0,
    alpha: float = 1.0,
    sqrt: bool = False,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def l1_distance_loss(
    pred: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def l1_keypoint_loss(
    pred: Tensor,
    target: Tensor,
    area: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def lovasz_hinge_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def lovasz_softmax_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def mask_bce_loss(
    logits: Tensor,
    targets: Tensor,
    area: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def mask_focal_loss(
    logits: Tensor,
    targets: Tensor,
    gamma: float = 1.5,
    alpha: float | None = 0.25,
    area: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def matchability_loss(
    logits: Tensor,
    quality: Tensor,
    gamma: float = 1.5,
    positive_mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def mgiou_loss(
    pred: Tensor,
    target: Tensor,
    eps: float = 1e-07,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def mpdiou_loss(
    pred: Tensor,
    target: Tensor,
    image_wh: Tensor | tuple[float, float],
    eps: float = 1e-07,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def nwd_loss(
    pred: Tensor,
    target: Tensor,
    constant: float = 12.8,
    eps: float = 1e-07,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def ohem_cross_entropy_loss(
    logits: Tensor,
    targets: Tensor,
    threshold: float = 0.7,
    keep: float = 0.0625,
    class_weights: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def oks_loss(
    pred: Tensor,
    target: Tensor,
    area: Tensor,
    sigmas: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def one_vs_all_loss(
    logits: Tensor,
    targets: Tensor,
    smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def piou2_loss(
    pred: Tensor,
    target: Tensor,
    lambda_: float = 1.3,
    eps: float = 1e-07,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def piou_loss(
    pred: Tensor,
    target: Tensor,
    lambda_: float = 1.3,
    eps: float = 1e-07,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def pixel_cross_entropy_loss(
    logits: Tensor,
    targets: Tensor,
    class_weights: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def pixel_focal_loss(
    logits: Tensor,
    targets: Tensor,
    gamma: float = 2.0,
    class_weights: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def poly_focal_loss(
    logits: Tensor,
    targets: Tensor,
    epsilon: float = 1.0,
    gamma: float = 2.0,
    alpha: float | None = 0.25,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def probiou_loss(
    pred: Tensor,
    target: Tensor,
    eps: float = 1e-07,
    floor: Tensor | float = 0.0,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def quality_focal_loss(
    logits: Tensor,
    targets: Tensor,
    beta: float = 2.0,
    alpha: float | None = None,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def rotated_diou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def rotated_iou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def rotated_mgiou_loss(
    pred: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def sdiou_loss(
    pred: Tensor,
    target: Tensor,
    stride: Tensor | float = 1.0,
    delta: float = 0.5,
    eps: float = 1e-07,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def shape_iou_loss(
    pred: Tensor,
    target: Tensor,
    scale: float = 0.0,
    eps: float = 1e-07,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def sin2_angle_loss(
    pred: Tensor,
    target: Tensor,
    lambda_: float = 3.0,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def siou_loss(
    pred: Tensor,
    target: Tensor,
    eps: float = 1e-07,
    theta: float = 4.0,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def slide_loss(
    logits: Tensor,
    targets: Tensor,
    mean_iou: Tensor | float,
    delta: float = 0.1,
    min_iou: float = 0.2,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def smooth_l1_distance_loss(
    pred: Tensor,
    target: Tensor,
    beta: float = 0.01,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def smooth_l1_keypoint_loss(
    pred: Tensor,
    target: Tensor,
    area: Tensor,
    beta: float = 0.1,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def softmax_cross_entropy_loss(
    logits: Tensor,
    targets: Tensor,
    smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def softmax_dice_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    smooth: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def softmax_focal_loss(
    logits: Tensor,
    targets: Tensor,
    gamma: float = 1.5,
    smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def softmax_poly_loss(
    logits: Tensor,
    targets: Tensor,
    epsilon: float = 1.0,
    smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def softmax_tversky_loss(
    logits: Tensor,
    targets: Tensor,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 1.0,
    *,
    smooth: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def tversky_loss(
    logits: Tensor,
    targets: Tensor,
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth: float = 1.0,
    gamma: float = 1.0,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def varifocal_loss(
    logits: Tensor,
    targets: Tensor,
    alpha: float = 0.75,
    gamma: float = 2.0,
    iou_weighted: bool = True,
    detach_weight: bool = False,
    positive_mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def visibility_focal_loss(
    logits: Tensor,
    targets: Tensor,
    gamma: float = 1.5,
    alpha: float | None = -1.0,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def wing_loss(
    pred: Tensor,
    target: Tensor,
    w: float = 10.0,
    epsilon: float = 2.0,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
def wiou_loss(
    pred: Tensor,
    target: Tensor,
    mean_loss: Tensor | float | None = None,
    version: int = 3,
    alpha: float = 1.9,
    delta: float = 3.0,
    eps: float = 1e-07,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor: ...
