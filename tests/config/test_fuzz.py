"""Bad input: keys of every kind through Python, the command line and YAML; labels and settings that are odd.

A value is either refused cleanly or taken: never another error, never a stock run where something else was asked for.
"""

from __future__ import annotations

import csv
import math
import os
import tempfile
import traceback
from collections.abc import Callable, Mapping
from decimal import Decimal
from numbers import Real
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY, criterion_of, made_up_batch, predictions, run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from make_dataset import make_dataset
from ultralytics import YOLO
from ultralytics.cfg import get_cfg, parse_key_value_pair

import yolo_losses
from yolo_losses import registry
from yolo_losses.config.settings import KEYS as CHOICE_KEYS
from yolo_losses.config.settings import LossSettings, default_keys
from yolo_losses.integration import arguments as policy
from yolo_losses.integration.criteria.branch import Branch

KEYS = default_keys()
PARAMETERS = {p.key: p for spec in registry.specs() for p in spec.parameters}
HOW_MANY = [300, pytest.param(10_000, marks=pytest.mark.long)]


class Hostile:
    """An object whose `repr` and `str` raise an error."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


# ------------------------------------------------------------------------------------------------ what is tried

MODIFIERS = [spec.name for spec in registry.specs("modifier")]
WORDS = {name: key.limits.words for name, key in CHOICE_KEYS.items()}
NAMES = ["stock", "none", "off", "dfl", *(word for words in WORDS.values() for word in words)]
NAMES += [name for spec in registry.specs() for name in (spec.name, *spec.aliases)]


@st.composite
def spelled(draw: Any) -> str:
    """A spelling of a loss's name, perhaps with modifiers."""
    name = "_".join([*draw(st.lists(st.sampled_from(MODIFIERS), max_size=3)), draw(st.sampled_from(NAMES))])
    name = draw(st.sampled_from([str, str.upper, str.title, lambda s: s.replace("_", "-"), lambda s: f" {s} "]))(name)
    if draw(st.booleans()):
        cut = draw(st.integers(0, len(name)))
        name = name[:cut] + draw(st.text(max_size=2)) + name[cut + draw(st.integers(0, 1)) :]
    return name


odd_text = st.sampled_from(
    [
        "__import__('os').system('false')",
        "os.system",
        "yolo_losses.integration.hook:uninstall",
        "!!python/object/apply:os.system [x]",
        "{cls_loss}",
        "%s",
        "../../etc/passwd",
        "slide\nfocal",
        "slide\x00",
        "\ud800",
        "\uff11",
        "1_000",
        "0x10",
        "1e5000",
        "nan",
        "-inf",
        "Infinity",
        "+.5",
        "1.",
        ".",
        "-",
        "_",
        "=",
        "inner_" * 40 + "ciou",
        "9" * 5000,
        "slide" * 1000,
    ]
)
texts = st.one_of(spelled(), odd_text, st.text(max_size=20), st.text(min_size=1000, max_size=1010))
numbers = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(0, 5),
    st.integers(-3, 20),
    st.sampled_from([10**400, -(10**400), 2**63, 1e308, 5e-324, -0.0, math.nan, math.inf]),
)
plain = st.one_of(st.none(), st.booleans(), numbers, numbers.map(str), texts)
nested = st.one_of(st.lists(plain, max_size=3), st.dictionaries(st.text(max_size=3), plain, max_size=2))
odd = st.sampled_from(
    [
        *(b"slide", (1, 2), {1}, 1j, Decimal(2), range(3), object(), Hostile(), Hostile, int, print),
        *(np.float64(0.5), np.int64(2), np.array(["a", "b"]), np.array(None), torch.tensor(0.5), torch.ones(2)),
    ]
)
choices = st.fixed_dictionaries(
    {},
    optional={
        "cls_loss": st.one_of(st.sampled_from([s.name for s in registry.specs("cls")]), spelled()),
        "box_loss": st.one_of(st.sampled_from([s.name for s in registry.specs("box")]), spelled()),
        "dfl_loss": st.sampled_from(["stock", "dfl", "off", False]),
        "cls_target": st.sampled_from(WORDS["cls_target"]),
        "loss_branches": st.sampled_from(WORDS["loss_branches"]),
    },
)


def mappings(values: SearchStrategy[Any]) -> SearchStrategy[dict[str, Any]]:
    """Return keys with values, some of them valid and some arbitrary."""
    anything = st.dictionaries(st.sampled_from(list(KEYS)), values, min_size=1, max_size=3)
    return st.builds(lambda sensible, rest: {**sensible, **rest}, choices, anything)


# ------------------------------------------------------------------------------------------------ what is asked of it


def means_the_default(key: str, value: Any) -> bool:
    """Return whether a value leaves the default; independent of the code under test."""
    if key in PARAMETERS and PARAMETERS[key].type is str:
        word = "off" if value is False else str(value).strip().lower()
        return word == KEYS[key] or (word == "none" and word not in PARAMETERS[key].limits.words)
    if value is None:
        return True
    if isinstance(value, str):
        word = value.strip().lower()
        if word in ("none", str(KEYS[key]).lower()):
            return True
        try:
            value = float(word)
        except ValueError:
            return isinstance(KEYS[key], bool) and (
                word in ("yes", "on") if KEYS[key] else word in ("no", "off")
            )  # fmt: skip
    if isinstance(value, bool) and not isinstance(KEYS[key], bool):
        return False
    return isinstance(value, Real) and not isinstance(KEYS[key], str) and value == KEYS[key]


def is_plain(value: Any) -> bool:
    """Return whether a value is what YAML has: a word, a number, or the weights of several classes or keypoints."""
    parts = [*value, *value.values()] if type(value) is dict else value if type(value) is list else [value]
    return all(type(part) in (str, float, int, bool) for part in parts)


def check(keys: Mapping[str, Any], parse: Callable[[Mapping[str, Any]], LossSettings]) -> LossSettings | None:
    """Parse the keys: either a clean refusal, or settings that are what was asked for and can be built."""
    try:
        parsed = parse(keys)
    except ValueError as error:
        message = str(error)
        assert "\n" not in message
        assert message.isprintable()
        assert len(message) < 2000
        assert any(f"'{key}=" in message for key in keys), message
        return None
    asked = {key: value for key, value in keys.items() if not means_the_default(key, value)}
    assert parsed.is_default == (not asked)
    again = LossSettings.from_mapping(parsed.to_config())
    assert again.to_config() == parsed.to_config()
    assert again.describe() == parsed.describe()
    assert all(is_plain(value) for value in parsed.non_default().values())
    for key, value in parsed.parameters.items():
        if isinstance(value, str):
            assert value in PARAMETERS[key].limits.words
        else:
            assert math.isfinite(value)
            assert PARAMETERS[key].limits.low <= value <= PARAMETERS[key].limits.high
    Branch.build(parsed, criterion=None)
    return parsed


def as_a_trainer_does(config: Any) -> LossSettings:
    """Check the keys where a trainer does; what is left on its arguments is what was asked for, and no more."""
    arguments = SimpleNamespace(**vars(config))
    trainer = SimpleNamespace(args=arguments, resume=False)
    policy.check(trainer, {})
    parsed: LossSettings = trainer.yolo_losses_settings
    assert {k: v for k, v in vars(arguments).items() if k in KEYS} == parsed.to_config()
    return parsed


def fuzz(how_many: int, given_keys: SearchStrategy[Any], test: Callable[[Any], None]) -> None:
    """Run a test on so many examples, which are random if they are many; failures are stored."""

    @settings(max_examples=how_many, deadline=None, database=None, derandomize=how_many < 1000)
    @given(given_keys)
    def one(keys: Any) -> None:
        test(keys)

    try:
        one()
    except BaseException as error:
        kept = Path(tempfile.gettempdir()) / f"yolo_losses_fuzz_{os.getpid()}.txt"
        kept.write_text("".join(traceback.format_exception(error)), encoding="utf-8", errors="backslashreplace")
        print(f"the failing example and the traceback are kept in {kept}")
        raise


@pytest.mark.parametrize("how_many", HOW_MANY)
def test_python_values_are_accepted_or_rejected_in_one_line(how_many):
    taken = []

    def test(keys: dict[str, Any]) -> None:
        taken.append(check(keys, LossSettings.from_mapping) is not None)

    fuzz(how_many, mappings(st.one_of(plain, nested, odd)), test)
    assert 0.02 < sum(taken) / len(taken) < 0.98, "both sides are tried"


@pytest.mark.parametrize("how_many", HOW_MANY)
def test_values_of_the_command_line_are_accepted_or_rejected_in_one_line(how_many):
    taken = []

    def test(keys: dict[str, Any]) -> None:
        line = [f"{key}={value}" for key, value in keys.items()]
        try:
            parsed = dict(parse_key_value_pair(pair) for pair in line)
        except AssertionError:  # Ultralytics' own answer to an empty value
            return
        assert parsed.keys() == keys.keys()
        taken.append(check(parsed, lambda given: as_a_trainer_does(get_cfg(overrides=dict(given)))) is not None)

    fuzz(how_many, mappings(st.one_of(plain, nested).filter(lambda v: "\x00" not in str(v))), test)
    assert 0.02 < sum(taken) / len(taken) < 0.98


@pytest.mark.parametrize("how_many", HOW_MANY)
def test_yaml_values_are_accepted_or_rejected_in_one_line(how_many, tmp_path):
    """As they stand in a file, quoted or not: `off`, `1e-1` and `.inf` are what YAML makes of them."""
    from ultralytics.utils import YAML

    file = tmp_path / "keys.yaml"
    taken = []

    def test(drawn: tuple[dict[str, Any], bool]) -> None:
        keys, bare = drawn
        text = "".join(f"{k}: {v}\n" for k, v in keys.items()) if bare else yaml.safe_dump(keys, allow_unicode=True)
        file.write_text(text, encoding="utf-8", errors="replace")
        try:
            loaded = YAML.load(file)
        except (yaml.YAMLError, ValueError):  # not YAML: Ultralytics says so before anything of ours is asked
            return
        if not isinstance(loaded, dict) or not loaded.keys() <= KEYS.keys():
            return
        taken.append(check(loaded, lambda _: as_a_trainer_does(get_cfg(overrides=str(file)))) is not None)

    # Very long and very large values are the other tests'.
    values = st.one_of(plain, nested).filter(lambda v: len(repr(v)) < 300)
    fuzz(how_many, st.tuples(mappings(values), st.booleans()), test)
    assert 0.02 < sum(taken) / len(taken) < 0.98


def test_tags_in_yaml_build_no_objects(tmp_path):
    from ultralytics.utils import YAML

    file, touched = tmp_path / "keys.yaml", tmp_path / "touched"
    for tag in ("!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir", "!!python/name:os.mkdir"):
        file.write_text(f"cls_loss: {tag} ['{touched}']\n")
        with pytest.raises((yaml.YAMLError, ValueError), match="could not determine a constructor"):
            YAML.load(file)
        assert not touched.exists()


@pytest.mark.parametrize("key", PARAMETERS)
def test_the_ends_of_a_parameter_s_range_train_to_finite_numbers(key):
    """What is allowed can be run: a batch with the smallest and with the largest value that the key takes."""
    parameter = PARAMETERS[key]
    limits = parameter.limits
    ends = [limits.low, limits.high] if limits.above == -math.inf else [limits.above + 0.01, limits.high]
    values = [v for v in ends if math.isfinite(v)] if parameter.type is not bool else [False, True]
    values += [50.0] if not math.isfinite(limits.high) else []
    values = list(limits.words) if parameter.type is str else values
    spec = next(s for s in registry.specs() if parameter in s.parameters)
    if spec.kind in ("classify", "ce", "dice"):
        pytest.skip("of a task without anchors, whose ranges `criteria/test_classify.py` and `test_semantic.py` try")
    heads = {"l1": "26", "seg": "v8-seg", "sem": "26-seg", "pose": "v8-pose", "kobj": "v8-pose"}
    head = "v8-obb" if spec.rotated else heads.get(spec.kind, "v8")
    name = f"{spec.name}_{(spec.module.bases or ('ciou',))[0]}" if spec.kind == "modifier" else spec.name
    ran = 0
    for value in values:
        chosen = {registry.TERM_KEYS.get(spec.kind, "box_loss"): name, key: value}
        # Of a pair such as slide_delta and slide_min_iou an end of the one may not go with the other's default.
        if check(chosen, LossSettings.from_mapping) is None:
            continue
        stock = criterion_of(head)
        yolo_losses.equip(stock, chosen)
        _, loss, gradients = run(stock, predictions(head), made_up_batch(head))
        assert loss.isfinite().all(), value
        assert all(g.isfinite().all() for g in gradients if g is not None), value
        ran += 1
    assert ran


# ------------------------------------------------------------------------------------------------ odd labels

ODD_LABELS = [
    "",  # an image without objects
    "0 0.5 0.5 0 0\n1 0.2 0.2 0 0.3\n",  # no size
    "0 1.5 0.5 0.2 0.2\n",  # outside: Ultralytics leaves the image out
    "9 0.5 0.5 0.2 0.2\n",  # no such class: the same
    "0 0.999 0.999 0.001 0.001\n2 0.5 0.5 1 1\n",  # a speck in the corner, the whole image
    "1 0.5 0.5 0.4 0.4\n" * 3,  # the same one three times
]


def odd_data(folder: Path, *, images: int = 8, classes: int = 3, many: bool = False) -> Path:
    """Make a data set with odd labels."""
    data = make_dataset(folder / "data", train=images, val=2, imgsz=64)
    labels = sorted((folder / "data" / "labels" / "train").glob("*.txt"))
    if classes == 1:
        for label in (folder / "data" / "labels").rglob("*.txt"):
            lines = label.read_text().splitlines()
            label.write_text("".join(f"0 {line.split(maxsplit=1)[1]}\n" for line in lines))
        data.write_text(data.read_text().partition("names:")[0] + "names: {0: thing}\n")
    elif images > len(ODD_LABELS):
        for label, text in zip(labels, ODD_LABELS, strict=False):
            label.write_text(text)
    if many:
        rng = np.random.default_rng(0)
        boxes = np.column_stack((rng.uniform(0.1, 0.9, (10_000, 2)), rng.uniform(0.01, 0.1, (10_000, 2))))
        labels[0].write_text("".join(f"0 {' '.join(f'{v:.6f}' for v in box)}\n" for box in boxes))
    return data


def finite_run(data: Path, folder: Path, **keys: Any) -> None:
    """Train an epoch and fail where a logged loss is not finite or the chosen losses were not called."""
    model = YOLO("yolov8n.yaml")
    model.train(data=str(data), project=str(folder), **{**TINY, **keys})
    assert model.trainer.yolo_losses_run.equipment.proven
    with open(model.trainer.csv, newline="") as file:
        rows = list(csv.DictReader(file))
    logged = [float(value) for row in rows for key, value in row.items() if key.strip().endswith("_loss")]
    assert len(logged) == 6 * len(rows) > 0
    assert all(math.isfinite(value) for value in logged)


@pytest.mark.slow
def test_odd_labels_with_class_weights_and_several_scales_train(tmp_path):
    finite_run(odd_data(tmp_path), tmp_path, cls_loss="slide", box_loss="siou", cls_pw=1.0, multi_scale=0.5, imgsz=128)


@pytest.mark.slow
def test_one_image_of_one_class_in_a_batch_of_one_trains(tmp_path):
    data = odd_data(tmp_path, images=1, classes=1)
    finite_run(data, tmp_path, cls_loss="vfl", cls_target="iou", box_loss="ciou", batch=1, rect=True, single_cls=True)


@pytest.mark.long
@pytest.mark.parametrize("cls_loss", [spec.name for spec in registry.specs("cls")])
@pytest.mark.parametrize(
    ("setting", "shape"),
    [
        ({"single_cls": True}, {}),
        ({"rect": True}, {}),
        ({"multi_scale": 0.5, "imgsz": 128}, {}),
        ({"cls_pw": 1.0}, {}),
        ({"batch": 1}, {}),
        ({"batch": 1}, {"images": 1}),
        ({}, {"classes": 1}),
        ({"mosaic": 0.0}, {"many": True}),
    ],
    ids=["single_cls", "rect", "multi_scale", "cls_pw", "batch 1", "one image", "one class", "10,000 objects"],
)
def test_every_class_loss_trains_under_every_odd_setting(cls_loss, setting, shape, tmp_path):
    finite_run(odd_data(tmp_path, **shape), tmp_path, cls_loss=cls_loss, box_loss="ciou", **setting)


@pytest.mark.long
@pytest.mark.parametrize("box_loss", [spec.name for spec in registry.specs("box") if not spec.rotated])
def test_every_box_loss_trains_on_odd_labels(box_loss, tmp_path):
    finite_run(odd_data(tmp_path, many=True), tmp_path, box_loss=box_loss, mosaic=0.5)
