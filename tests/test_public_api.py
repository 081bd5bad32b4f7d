"""What the package promises to Python: names, signatures, defaults, docstrings, types."""

from __future__ import annotations

import ast
import copy
import dataclasses
import importlib
import inspect
import pickle
import pkgutil
import subprocess
import sys
from typing import Any

import pytest
import torch
from conftest import criterion_of, head
from torch import nn

import yolo_losses
from yolo_losses import functional, make_loss, registry

REQUIRED = inspect.Parameter.empty

# What is promised: these functions with their arguments in order; `weight`, `reduction` and `avg_factor` come on top.
FUNCTIONS: dict[str, dict[str, Any]] = {
    "bce_loss": {"logits": REQUIRED, "targets": REQUIRED, "pos_weight": None},
    "focal_loss": {"logits": REQUIRED, "targets": REQUIRED, "gamma": 1.5, "alpha": 0.25},
    "varifocal_loss": {
        "logits": REQUIRED,
        "targets": REQUIRED,
        "alpha": 0.75,
        "gamma": 2.0,
        "iou_weighted": True,
        "detach_weight": False,
        "positive_mask": None,
    },
    "quality_focal_loss": {"logits": REQUIRED, "targets": REQUIRED, "beta": 2.0, "alpha": None},
    "slide_loss": {"logits": REQUIRED, "targets": REQUIRED, "mean_iou": REQUIRED, "delta": 0.1, "min_iou": 0.2},
    "poly_focal_loss": {"logits": REQUIRED, "targets": REQUIRED, "epsilon": 1.0, "gamma": 2.0, "alpha": 0.25},
    "asymmetric_loss": {
        "logits": REQUIRED,
        "targets": REQUIRED,
        "gamma_pos": 1.0,
        "gamma_neg": 4.0,
        "shift": 0.05,
        "detach_weight": True,
    },
    "matchability_loss": {"logits": REQUIRED, "quality": REQUIRED, "gamma": 1.5, "positive_mask": None},
    "ghm_loss": {"logits": REQUIRED, "targets": REQUIRED, "bins": 10},
    **{
        f"{name}_loss": {"pred": REQUIRED, "target": REQUIRED, "eps": 1e-7}
        for name in ("iou", "giou", "diou", "ciou", "eiou")
    },
    "siou_loss": {"pred": REQUIRED, "target": REQUIRED, "eps": 1e-7, "theta": 4.0},
    "mpdiou_loss": {"pred": REQUIRED, "target": REQUIRED, "image_wh": REQUIRED},
    "shape_iou_loss": {"pred": REQUIRED, "target": REQUIRED, "scale": 0.0},
    "piou_loss": {"pred": REQUIRED, "target": REQUIRED, "lambda_": 1.3},
    "piou2_loss": {"pred": REQUIRED, "target": REQUIRED, "lambda_": 1.3},
    "nwd_loss": {"pred": REQUIRED, "target": REQUIRED, "constant": 12.8},
    "wiou_loss": {"pred": REQUIRED, "target": REQUIRED, "mean_loss": None, "version": 3, "alpha": 1.9, "delta": 3.0},
    "distribution_focal_loss": {"logits": REQUIRED, "target": REQUIRED},
    "rotated_iou_loss": {"pred": REQUIRED, "target": REQUIRED},
    "rotated_diou_loss": {"pred": REQUIRED, "target": REQUIRED},
    "gwd_loss": {
        "pred": REQUIRED,
        "target": REQUIRED,
        "fun": "log1p",
        "tau": 1.0,
        "alpha": 1.0,
        "normalize": True,
    },
    "kld_loss": {"pred": REQUIRED, "target": REQUIRED, "fun": "log1p", "tau": 1.0, "alpha": 1.0, "sqrt": False},
    "kfiou_loss": {"pred": REQUIRED, "target": REQUIRED, "fun": "none", "centre": "size"},
    "gcd_loss": {"pred": REQUIRED, "target": REQUIRED},
    "sdiou_loss": {"pred": REQUIRED, "target": REQUIRED, "stride": 1.0, "delta": 0.5},
    "equalized_focal_loss": {
        "logits": REQUIRED,
        "targets": REQUIRED,
        "pos_neg_ratio": REQUIRED,
        "gamma": 2.0,
        "alpha": 0.25,
        "scale": 8.0,
    },
    "equalized_quality_focal_loss": {
        "logits": REQUIRED,
        "targets": REQUIRED,
        "pos_neg_ratio": REQUIRED,
        "gamma": 2.0,
        "scale": 8.0,
        "positive_mask": None,
    },
    "dice_loss": {"logits": REQUIRED, "targets": REQUIRED, "smooth": 1.0},
    "tversky_loss": {"logits": REQUIRED, "targets": REQUIRED, "alpha": 0.3, "beta": 0.7, "smooth": 1.0},
    "lovasz_hinge_loss": {"logits": REQUIRED, "targets": REQUIRED},
    "l1_distance_loss": {"pred": REQUIRED, "target": REQUIRED},
    "smooth_l1_distance_loss": {"pred": REQUIRED, "target": REQUIRED, "beta": 0.01},
    "sin2_angle_loss": {"pred": REQUIRED, "target": REQUIRED, "lambda_": 3.0},
    "cos2_angle_loss": {"pred": REQUIRED, "target": REQUIRED, "lambda_": 3.0},
}
SHARED = {"weight": None, "reduction": "none", "avg_factor": None}

LOSSES = [spec for spec in registry.specs() if spec.built_in and spec.kind != "modifier"]
PROMISED_MODULES = {"BCELoss", "FocalLoss", "VarifocalLoss", "QualityFocalLoss", "SlideLoss", "EMASlideLoss"}
CRITERIA = {"DetectionLoss": "v8", "SegmentationLoss": "v8-seg", "PoseLoss": "v8-pose", "OBBLoss": "v8-obb"}
MAKERS = {
    "cls": yolo_losses.make_cls_loss,
    "classify": yolo_losses.make_classify_loss,
    "ce": yolo_losses.make_pixel_loss,
    "dice": yolo_losses.make_region_loss,
    "box": yolo_losses.make_box_loss,
    "seg": yolo_losses.make_seg_loss,
}
TERM_KEYS = {
    kind: f"{kind}_loss" for kind in ("l1", "angle", "sem", "pose", "kobj")
}  # of the kinds that `make_loss` makes
TOOLS = ["equip", "register_cls_loss", "register_box_loss", "LossSettings", "list_losses", "show"]
TOOLS += ["make_loss", *(maker.__name__ for maker in MAKERS.values())]
NAMES = {
    *PROMISED_MODULES,
    *(spec.module.__name__ for spec in LOSSES),
    *CRITERIA,
    *TOOLS,
    "functional",
    "DistributionFocalLoss",
}


def takes_masks(name: str) -> bool:
    return getattr(functional, name).__module__.startswith("yolo_losses.losses.masks.")


def arguments(name: str) -> tuple[torch.Tensor, ...]:
    """Positional arguments that the function takes."""
    if name == "distribution_focal_loss":
        return torch.zeros(3, 16), torch.tensor([1.0, 2.5, 15.0])
    extra: tuple[torch.Tensor, ...] = ()
    if takes_masks(name):
        return torch.linspace(-2, 2, 12).view(3, 2, 2), torch.tensor([0.0, 1.0, 1.0] * 4).view(3, 2, 2)
    if "logits" not in FUNCTIONS[name]:
        if name == "mpdiou_loss":
            extra = (torch.tensor([640.0, 480.0]),)
        home = getattr(functional, name).__module__
        if any(spec.rotated or spec.kind == "angle" for spec in LOSSES if spec.module.__module__ == home):
            return torch.tensor([[5.0, 4.0, 10.0, 8.0, 0.3]] * 3), torch.tensor([[7.0, 5.0, 9.0, 8.0, 0.7]] * 3)
        return torch.tensor([[0.0, 0.0, 10.0, 8.0]] * 3), torch.tensor([[2.0, 1.0, 12.0, 8.0]] * 3), *extra
    if name == "slide_loss":
        extra = (torch.tensor(0.4),)
    if "pos_neg_ratio" in FUNCTIONS[name]:
        extra = (torch.tensor([0.4, 1.0]),)
    return torch.linspace(-2, 2, 6).view(3, 2), torch.tensor([[0.0, 0.7], [0.0, 0.0], [0.3, 1.0]]), *extra


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_has_the_promised_signature(name: str) -> None:
    parameters = inspect.signature(getattr(functional, name)).parameters
    assert {key: parameters[key].default for key in SHARED} == SHARED
    own = {key: p for key, p in parameters.items() if key not in SHARED}
    promised = FUNCTIONS[name]
    assert list(own)[: len(promised)] == list(promised), "what is not promised comes last"
    assert {key: own[key].default for key in promised} == promised
    assert all(p.default is not REQUIRED for key, p in own.items() if key not in promised)
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in own.values())


def test_class_balanced_weights_has_the_promised_signature() -> None:
    parameters = inspect.signature(functional.class_balanced_weights).parameters
    assert {name: p.default for name, p in parameters.items()} == {"counts": REQUIRED, "beta": 0.999}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_may_be_called_by_keyword(name: str) -> None:
    function, given = getattr(functional, name), arguments(name)
    plain = function(*given)
    named = dict(zip(FUNCTIONS[name], given, strict=False))
    defaults = {key: value for key, value in FUNCTIONS[name].items() if value is not REQUIRED}
    assert function(**named).equal(plain)
    assert function(given[0], **dict(list(named.items())[1:])).equal(plain)
    assert function(**defaults, **SHARED, **named).equal(plain)
    assert function(*given, *defaults.values()).equal(plain)
    assert function(**named, reduction="sum").item() == pytest.approx(plain.sum().item())
    assert function(**named, weight=torch.ones(3)).equal(plain)
    for wrong in ({"gama": 1.0}, {next(iter(FUNCTIONS[name])): given[0]}):
        with pytest.raises(TypeError):
            function(*given, **wrong)
    with pytest.raises(TypeError):
        function(given[0])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_returns_the_loss_per_element_per_pair_or_per_mask(name: str) -> None:
    first, *_ = given = arguments(name)
    per_element = "logits" in FUNCTIONS[name] or name.endswith("distance_loss")
    wanted = first.shape if per_element and name != "distribution_focal_loss" else first.shape[:-1]
    if takes_masks(name):
        wanted = first.shape[:1]
    assert getattr(functional, name)(*given).shape == wanted


def test_functions_are_listed_and_nothing_else_is() -> None:
    names = set(dir(functional))
    assert names >= set(FUNCTIONS)
    formulas = {spec.module.formula for spec in registry.specs() if spec.module.formula is not None}
    others = {"distribution_focal_loss", "class_balanced_weights"}
    assert others <= names
    assert {getattr(functional, name) for name in names - others} == formulas
    own = {spec.module.formula.__name__ for spec in LOSSES}
    assert all(name.endswith("_loss") for name in own)
    assert not {"reduce_loss", "register_cls_loss", "make_cls_loss"} & names


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(AttributeError, match="Did you mean 'focal_loss'"):
        functional.focl_loss  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'FocallLoss'"):
        yolo_losses.FocallLoss  # noqa: B018
    with pytest.raises(ImportError):
        from yolo_losses import NoSuchLoss  # noqa: F401


def test_names_can_be_imported_one_by_one_or_all() -> None:
    from yolo_losses import FocalLoss
    from yolo_losses.functional import focal_loss

    functions: dict[str, Any] = {}
    names: dict[str, Any] = {}
    exec("from yolo_losses.functional import *", functions)
    exec("from yolo_losses import *", names)
    assert functions["focal_loss"] is focal_loss
    assert set(FUNCTIONS) <= set(functions)
    assert names["FocalLoss"] is FocalLoss
    assert set(names) >= NAMES
    assert set(dir(yolo_losses)) >= NAMES


@pytest.mark.parametrize("spec", LOSSES, ids=lambda spec: f"{spec.kind}_{spec.name}")
def test_module_is_found_by_its_name_and_its_key(spec: registry.LossSpec) -> None:
    name = spec.module.__name__
    module = getattr(yolo_losses, name)
    assert module is spec.module
    assert issubclass(module, nn.Module)
    named = MAKERS[spec.kind](spec.name) if spec.kind in MAKERS else make_loss(TERM_KEYS[spec.kind], spec.name)
    assert type(named) is module
    assert named.reduction == "none"
    assert spec.name in yolo_losses.list_losses()["rotated" if spec.rotated else registry.KINDS[spec.kind].group]
    assert module().reduction == "mean"
    assert repr(module()).startswith(name)
    parameters = inspect.signature(module.forward).parameters
    shared = ["pred", "target", "weight", "avg_factor", "reduction_override"]
    if name != "EMASlideLoss":  # which passes on what it is given
        assert [argument for argument in parameters if argument != "self"][:5] == shared
        assert all(parameters[argument].default is None for argument in shared[2:])


def test_list_losses_has_every_registered_name_once() -> None:
    listed = yolo_losses.list_losses()
    assert sum(map(len, listed.values())) == len(registry.specs())
    assert list(listed)[:3] == ["class", "box", "rotated"]
    assert all(names == sorted(names) for names in listed.values())


def test_show_draws_what_the_command_draws() -> None:
    from yolo_losses import plots

    figure = yolo_losses.show("focal", focal_gamma=[1.5, 3])
    again = plots.draw(["focal"], {"focal_gamma": ["1.5", "3"]})
    assert [len(axes.lines) for axes in figure.axes] == [len(axes.lines) for axes in again.axes]
    assert len(figure.axes[0].lines) > len(yolo_losses.show("focal", focal_gamma=3).axes[0].lines)
    with pytest.raises(ValueError, match="list_losses"):
        yolo_losses.show()


def test_named_losses_take_their_keys() -> None:
    assert yolo_losses.make_cls_loss("focal", focal_gamma=2.0).gamma == 2.0
    inner = yolo_losses.make_box_loss("focaler_inner_ciou", inner_ratio=0.8)
    box = torch.tensor([[0.0, 0.0, 10.0, 8.0]])
    assert inner(box, box + 1).shape == (1,)
    assert "ratio=0.8" in repr(inner)
    with pytest.raises(ValueError, match="'focal_gamma' is not a parameter of 'slide'"):
        yolo_losses.make_cls_loss("slide", focal_gamma=2.0)
    with pytest.raises(ValueError, match="'inner_ratio' is not a parameter of 'ciou'"):
        yolo_losses.make_box_loss("ciou", inner_ratio=0.8)
    assert yolo_losses.make_seg_loss("tversky", seg_tversky_alpha=0.5).alpha == 0.5
    with pytest.raises(ValueError, match=r"seg_loss=focl' is not valid.*Did you mean 'focal'"):
        yolo_losses.make_seg_loss("focl")


@pytest.mark.parametrize("name", CRITERIA)
def test_criterion_is_that_of_its_task_with_the_chosen_losses(name: str) -> None:
    from ultralytics.utils import loss as stock

    kind = getattr(yolo_losses, name)
    for settings in ({"cls_loss": "focal"}, yolo_losses.LossSettings.from_mapping({"cls_loss": "focal"})):
        criterion = kind(head(CRITERIA[name]), settings=settings)
        assert isinstance(criterion, getattr(stock, f"v8{name}"))
        assert type(criterion.branches[""].cls) is yolo_losses.FocalLoss
    untouched = kind(head(CRITERIA[name]))
    assert type(untouched.bce) is type(criterion_of(CRITERIA[name]).bce)


def test_equip_swaps_a_criterion_that_exists_in_place() -> None:
    criterion = criterion_of("v8")
    before = criterion.bce
    yolo_losses.equip(criterion, yolo_losses.LossSettings.from_mapping({"cls_loss": "slide"}))
    assert criterion.bce is not before


def test_settings_are_frozen_and_stock_by_default() -> None:
    settings = yolo_losses.LossSettings()
    assert (settings.cls_loss, settings.box_loss, settings.dfl_loss) == ("stock", "stock", "stock")
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.cls_loss = "focal"  # type: ignore[misc]


@pytest.mark.slow
def test_importing_twice_is_importing_once() -> None:
    code = "import yolo_losses, importlib; importlib.reload(yolo_losses); print(yolo_losses.FocalLoss())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("FocalLoss(gamma=1.5, alpha=0.25)")


def public() -> dict[str, Any]:
    """Every public object by its name, the methods of our classes too."""
    found = {name: getattr(yolo_losses, name) for name in dir(yolo_losses) if name != "__version__"}
    found |= {f"functional.{name}": getattr(functional, name) for name in dir(functional)}
    for name, value in list(found.items()):
        if inspect.isclass(value) and value.__module__.startswith("yolo_losses"):
            own = {key: member for key, member in vars(value).items() if not key.startswith("_")}
            found |= {f"{name}.{key}": member for key, member in own.items() if inspect.isfunction(member)}
    return found


def test_every_public_name_has_a_docstring() -> None:
    assert not [name for name, value in public().items() if not (inspect.getdoc(value) or "").strip()]


def test_every_argument_of_a_function_is_explained() -> None:
    for name in dir(functional):
        function = getattr(functional, name)
        text = inspect.getdoc(function) or ""
        for argument in inspect.signature(function).parameters:
            assert f"    {argument}: " in text, f"{name}: {argument}"


def test_settings_can_be_copied_pickled_and_hashed_and_stay_frozen() -> None:
    settings = yolo_losses.LossSettings.from_mapping({"cls_loss": "focal", "focal_gamma": 2, "inner_ratio": 0.5})
    for again in (copy.deepcopy(settings), pickle.loads(pickle.dumps(settings))):
        assert again == settings
        assert hash(again) == hash(settings)
        with pytest.raises(TypeError):
            again.parameters["focal_gamma"] = 3  # type: ignore[index]


def test_no_function_of_a_package_has_the_name_of_one_of_its_modules() -> None:
    """The import of such a module puts it in the function's place: the second call is of a module."""
    packages = [found.name for found in pkgutil.walk_packages(yolo_losses.__path__, "yolo_losses.") if found.ispkg]
    for name in ("yolo_losses", *packages):
        package = importlib.import_module(name)
        functions = {node.name for node in ast.parse(inspect.getsource(package)).body if hasattr(node, "name")}
        for module in pkgutil.iter_modules(package.__path__):
            assert module.name not in functions, f"{name}.{module.name}"
            value = vars(package).get(module.name)
            assert inspect.ismodule(value) or not callable(value), f"{name}.{module.name}"
