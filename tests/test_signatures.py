"""What an editor, a type checker, `help()` and `inspect.signature` say of a public name is the same, and true."""

from __future__ import annotations

import doctest
import inspect
import pydoc
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import yolo_losses
from yolo_losses import functional, registry
from yolo_losses.losses._module import LossModule
from yolo_losses.losses.classification._base import ClassificationLoss

MODULES = [spec.module for spec in registry.specs() if spec.built_in and spec.kind != "modifier"]
MODULES.append(yolo_losses.DistributionFocalLoss)
MODIFIERS = [spec.module for spec in registry.specs("modifier") if spec.built_in]
FUNCTIONS = [getattr(functional, name) for name in dir(functional)]
BUILT_IN = [function for function in FUNCTIONS if function.__module__.startswith("yolo_losses.")]
PUBLIC = {f"yolo_losses.{module.__name__}": module for module in MODULES}
PUBLIC |= {f"yolo_losses.functional.{f.__name__}": f for f in BUILT_IN if f.__name__.endswith("_loss")}
every_function = pytest.mark.parametrize("function", BUILT_IN, ids=lambda function: function.__name__)
every_module = pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
OPTIONS = {"reduction": "mean", "loss_weight": 1.0}


@every_module
def test_a_modules_signature_has_its_parameters_with_the_functions_types_and_defaults(module: type[LossModule]) -> None:
    parameters = inspect.signature(module).parameters
    declared = {p.name: p for p in module.declared()}
    assert [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD] == list(declared)
    options = {p.name: p.default for p in parameters.values() if p.kind is p.KEYWORD_ONLY}
    assert options.items() >= OPTIONS.items()
    assert ("activated" in options) == issubclass(module, ClassificationLoss)
    if module.formula is not None:
        formula = inspect.signature(module.formula).parameters
        for name in declared.keys() & formula.keys():
            assert (parameters[name].default, parameters[name].annotation) == (
                formula[name].default,
                formula[name].annotation,
            )


@pytest.mark.parametrize("module", [*MODULES, *MODIFIERS], ids=lambda m: m.__name__)
def test_a_module_takes_its_parameters_by_position(module: type[LossModule]) -> None:
    declared = module.declared()
    values = [p.default for p in declared]
    assert repr(module(*values)) == repr(module(**{p.name: p.default for p in declared})) == repr(module())
    with pytest.raises(TypeError, match=f"{module.__name__} takes {len(values)} parameters by position"):
        module(*values, 1.0)
    for parameter in declared[:1]:
        with pytest.raises(TypeError, match=f"two values of the parameter '{parameter.name}'"):
            module(parameter.default, **{parameter.name: parameter.default})
    with pytest.raises(TypeError, match="has no parameter 'gama'"):
        module(gama=1.0)


def test_an_error_names_a_parameter_as_it_was_given() -> None:
    with pytest.raises(ValueError, match=r"^'gamma=-1' is not valid: allowed is a number >= 0$"):
        yolo_losses.FocalLoss(-1)
    with pytest.raises(ValueError, match=r"^'focal_gamma=-1' is not valid"):
        yolo_losses.make_cls_loss("focal", focal_gamma=-1)
    with pytest.raises(ValueError, match=r"^'delta=0.5' and 'min_iou=0.2' do not go together"):
        yolo_losses.SlideLoss(0.5)
    with pytest.raises(ValueError, match=r"^'ema_slide_delta=0.5' and 'ema_slide_min_iou=0.2' do not go together"):
        yolo_losses.make_cls_loss("ema_slide", ema_slide_delta=0.5)
    focaler = registry.find("modifier", "focaler")
    assert focaler is not None
    with pytest.raises(ValueError, match=r"^'u=0.5' is not valid: allowed is a number above 'd=0.9'"):
        focaler.module(0.9, 0.5)
    with pytest.raises(ValueError, match=r"^'focaler_u=0.5' is not valid: allowed is a number above 'focaler_d=0.9'"):
        yolo_losses.make_box_loss("focaler_ciou", focaler_d=0.9, focaler_u=0.5)


def test_a_subclass_with_its_own_initialiser_has_the_signature_of_that() -> None:
    class Mine(yolo_losses.FocalLoss):
        def __init__(self, strength: float = 2.0) -> None:
            super().__init__(strength, alpha=None)

    class Extended(yolo_losses.FocalLoss):
        pass

    assert str(inspect.signature(Mine)) == "(strength: float = 2.0) -> None"
    assert inspect.signature(Extended) == inspect.signature(yolo_losses.FocalLoss)
    assert Mine(3.0).gamma == 3.0


@pytest.mark.parametrize("module", [*MODULES, *MODIFIERS], ids=lambda m: m.__name__)
def test_every_argument_of_a_module_is_explained(module: type[LossModule]) -> None:
    text = inspect.getdoc(module) or ""
    for argument in inspect.signature(module).parameters:
        assert f"    {argument}: " in text or f"`{argument}`" in text, argument


@every_function
def test_help_shows_plain_types_first(function: Any) -> None:
    first = pydoc.plain(pydoc.render_doc(function)).splitlines()[2]
    assert first.startswith(f"{function.__name__}(")
    assert "Annotated" not in first
    assert "Param(" not in first


@every_module
def test_help_shows_a_modules_parameters_first(module: type[LossModule]) -> None:
    first = pydoc.plain(pydoc.render_doc(module)).splitlines()[3]
    assert first.strip() == f"|  {module.__name__}{inspect.signature(module)}".strip()
    assert "Annotated" not in first


@pytest.mark.slow
def test_an_editor_shows_the_signature_and_the_docstring_of_every_name() -> None:
    jedi = pytest.importorskip("jedi")
    wrong = []
    project = jedi.Project(Path(yolo_losses.__file__).parents[1])
    for name, what in PUBLIC.items():
        line = f"{name}("
        (seen,) = jedi.Script(f"import yolo_losses\n{line}", project=project).get_signatures(2, len(line))
        own = inspect.signature(what)
        wanted = f"{what.__name__}{own if inspect.isfunction(what) else own.replace(return_annotation=own.empty)}"
        if seen.to_string().replace(" = ", "=").replace('"', "'") != wanted.replace("torch.", "").replace(" = ", "="):
            wrong.append((seen.to_string(), wanted))
        summary = (inspect.getdoc(what) or "").partition("\n")[0]
        if summary not in seen.docstring():
            wrong.append((name, seen.docstring()))
    assert not wrong


SNIPPET = """
import torch
import yolo_losses
from yolo_losses import FocalLoss, LossSettings, equip, make_box_loss, make_cls_loss, register_cls_loss
from yolo_losses.functional import ciou_loss, focal_loss


def train_step(logits: torch.Tensor, targets: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    by_function: torch.Tensor = focal_loss(logits, targets, gamma=2.0, reduction="mean", avg_factor=4)
    by_module: torch.Tensor = FocalLoss(gamma=2.0)(logits, targets)
    by_name: torch.Tensor = make_cls_loss("slide", slide_delta=0.1)(logits, targets).sum()
    box: torch.Tensor = make_box_loss("inner_siou", inner_ratio=0.7)(boxes, boxes).mean()
    again: torch.Tensor = yolo_losses.functional.slide_loss(logits, targets, 0.4)
    return again.sum() + by_function + by_module + by_name + box + ciou_loss(boxes, boxes).sum()


@register_cls_loss("mine")
def my_loss(logits: torch.Tensor, targets: torch.Tensor, power: float = 2.0) -> torch.Tensor:
    return (logits.sigmoid() - targets).abs() ** power


settings: LossSettings = LossSettings()
equip(object(), settings)
make_cls_loss("slide", reduction=3)  # type: ignore[arg-type]
FocalLoss(gama=2.0)  # type: ignore[call-arg]
FocalLoss("2.0")  # type: ignore[arg-type]
yolo_losses.FocallLoss()  # type: ignore[attr-defined]
"""


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """Return what mypy says of a user's code and of every public name, by one run, which takes most of a minute."""
    pytest.importorskip("mypy")
    folder = tmp_path_factory.mktemp("checked")
    names = "\n".join(f"reveal_type({name})" for name in PUBLIC)
    (folder / "mine.py").write_text(SNIPPET, encoding="utf-8")
    (folder / "names.py").write_text(f"import yolo_losses\nimport yolo_losses.functional\n{names}\n", encoding="utf-8")
    options = ["--warn-unused-ignores", "--cache-dir", str(folder / "cache")]
    command = [sys.executable, "-m", "mypy", *options, "mine.py", "names.py"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


@pytest.mark.slow
def test_a_users_code_passes_the_type_checker(checked: subprocess.CompletedProcess[str]) -> None:
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
def test_a_type_checker_sees_the_signature_of_every_name(checked: subprocess.CompletedProcess[str]) -> None:
    revealed = [line for line in checked.stdout.splitlines() if line.startswith("names.py") and "Revealed type" in line]
    for (name, what), line in zip(PUBLIC.items(), revealed, strict=True):
        seen = re.findall(r"(\w+): ", line.partition("def ")[2])
        assert seen == list(inspect.signature(what).parameters), (name, line)


TOOLS = [getattr(yolo_losses, name) for name in dir(yolo_losses) if name.startswith(("make_", "list_", "show"))]


@pytest.mark.parametrize("what", [*BUILT_IN, *MODULES, *TOOLS], ids=lambda what: what.__name__)
def test_examples_print_what_they_say(what: Any) -> None:
    tests = doctest.DocTestFinder(recurse=False).find(what, what.__name__, globs={})
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in tests:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("function", [*BUILT_IN, *TOOLS], ids=lambda function: function.__name__)
def test_every_function_has_an_example_with_what_it_prints(function: Any) -> None:
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(function) or "")
    assert any(example.want for example in examples)


SHAPES = {
    "class": ((2, 3), (2, 4)),
    "classify": ((2, 3), (3, 3)),
    "ce": ((2, 3), (3,)),
    "dice": ((2, 3), (3,)),
    "box": ((2, 4), (3, 4)),
    "rotated": ((2, 5), (3, 5)),
    "mask": ((2, 4, 4), (2, 4, 5)),
    "l1": ((2, 4), (3, 4)),
    "angle": ((2, 5), (3, 5)),
    "sem": ((2, 4, 4), (2, 4, 5)),
    "pose": ((2, 3, 2), (2, 4, 2)),
    "kobj": ((2, 3), (2, 4)),
}
EXTRA = {"image_wh": (64, 64), "mean_iou": 0.5, "pos_neg_ratio": torch.ones(3)}


def calls(spec: registry.LossSpec, first: tuple[int, ...], second: tuple[int, ...]) -> list[tuple[Any, Any]]:
    """Return calls of a loss's function and module with tensors of two shapes."""
    taken = inspect.signature(spec.module.formula).parameters
    extra = {name: value for name, value in EXTRA.items() if name in taken}
    tensors = torch.ones(first), torch.ones(second)
    module = {name: value for name, value in extra.items() if name in spec.module.supplied_arguments}
    return [
        (lambda: spec.module.formula(*tensors, **extra), extra),
        (lambda: spec.module()(*tensors, **module), module),
    ]


@pytest.mark.parametrize(
    "spec", [s for s in registry.specs() if s.built_in and s.kind != "modifier"], ids=lambda s: f"{s.kind}_{s.name}"
)
def test_shapes_that_do_not_fit_are_refused_in_one_sentence(spec: registry.LossSpec) -> None:
    family = "rotated" if spec.rotated else {"cls": "class", "seg": "mask"}.get(spec.kind, spec.kind)
    first, second = SHAPES[family]
    for call, _ in calls(spec, first, second):
        with pytest.raises(ValueError, match=r"^[^\n]*do(es)? not fit[^\n]*$"):
            call()
    others = {"box": [(2, 5), (2, 3), ()], "rotated": [(2, 4), ()], "mask": [(4, 4), (1, 2, 4, 4)]}
    for shape in others.get(family, []):
        for call, _ in calls(spec, shape, shape):
            with pytest.raises(ValueError, match=r"^'\w+' of shape [^\n]*allowed are[^\n]*$"):
                call()
