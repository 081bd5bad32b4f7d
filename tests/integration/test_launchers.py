"""What starts trainings elsewhere, or several of them: each trains with the chosen loss, or is refused at once."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TINY, Result, logged, start
from ultralytics import YOLO
from ultralytics.utils import dist

from yolo_losses import LossSettings
from yolo_losses.config.settings import default_keys

KEYS: dict[str, Any] = {"cls_loss": "ema_slide", "box_loss": "inner_siou", "inner_ratio": 0.8}
MULTI_GPU = pytest.mark.skipif(
    "cloudpickle" in Path(dist.__file__).read_text(encoding="utf-8") and not importlib.util.find_spec("cloudpickle"),
    reason="this Ultralytics hands its state to multi-GPU workers by cloudpickle, which is not installed",
)

# Writes the script that Ultralytics starts on each GPU, and says where it is.
MULTI_GPU_PARENT = """
import json, sys
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.dist import generate_ddp_file

def quiet(trainer):
    print("a callback of the user's own ran")

trainer = DetectionTrainer(overrides=json.loads(sys.argv[1]))
trainer.add_callback("on_train_start", quiet)
print("script:", generate_ddp_file(trainer))
"""

PLUGIN = """
import yolo_losses

@yolo_losses.register_cls_loss("half_bce")
def half_bce_loss(logits, targets, share: float = 0.5):
    '''A part of BCE.'''
    return share * yolo_losses.functional.bce_loss(logits, targets)
"""

SEVERAL_SETS = """
import json, sys
from ultralytics import YOLO

YOLO("yolov8n.yaml").train(**json.loads(sys.argv[1]))
"""

RAY = """
import json, sys
import ray
from ray import tune
from ultralytics import YOLO

keys = json.loads(sys.argv[1])
ray.init(num_cpus=2, include_dashboard=False)
results = YOLO("yolov8n.yaml").tune(
    use_ray=True, search_alg="random", grace_period=1, space={"cls_loss": tune.choice(["slide", "vfl"])}, **keys
)
print("trials:", json.dumps([[r.config["cls_loss"], str(r.error or "")] for r in results]))
"""


def our_keys(folder: Path) -> dict[str, Any]:
    """Return this package's keys in a run's `args.yaml`."""
    arguments = yaml.safe_load((folder / "args.yaml").read_text())
    return {key: value for key, value in arguments.items() if key in default_keys()}


def worker_of_a_multi_gpu_training(keys: dict[str, Any], **env: str) -> Result:
    parent = start(sys.executable, "-c", MULTI_GPU_PARENT, json.dumps(keys), **env)().check()
    script = parent.saying("script: ")[0].partition("script: ")[2]
    try:
        return start(sys.executable, script, **env)().check()
    finally:
        Path(script).unlink()
        Path(script).with_suffix(".pt").unlink(missing_ok=True)


@MULTI_GPU
@pytest.mark.slow
def test_the_script_of_a_multi_gpu_worker_trains_with_the_chosen_loss(tmp_path: Path, data: Path) -> None:
    place = {"data": str(data), "project": str(tmp_path), "name": "run"}
    worker = worker_of_a_multi_gpu_training({"model": "yolov8n.yaml", **TINY, **KEYS, **place})
    assert len(worker.saying("equipped for training and validation")) == 1  # the parent's callback and its own are one
    assert worker.saying("EMASlideLoss")
    assert worker.saying("ran in the first batch with objects: class, box")
    assert our_keys(tmp_path / "run").items() >= KEYS.items()
    if "cloudpickle" in Path(dist.__file__).read_text(encoding="utf-8"):
        assert worker.saying("a callback of the user's own ran")


@MULTI_GPU
@pytest.mark.slow
def test_a_worker_inherits_the_plugin_files_of_the_environment(tmp_path: Path, data: Path) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    keys = {"cls_loss": "half_bce", "half_bce_share": 0.25}
    place = {"data": str(data), "project": str(tmp_path), "name": "run"}
    worker = worker_of_a_multi_gpu_training(
        {"model": "yolov8n.yaml", **TINY, **keys, **place}, YOLO_LOSSES_PLUGINS=str(tmp_path / "plugin.py")
    )
    assert worker.saying("class term 0.25 times BCE's")
    arguments = yaml.safe_load((tmp_path / "run" / "args.yaml").read_text())
    assert {key: arguments[key] for key in keys} == keys


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"cls_loss": "focal", "space": {"focal_gamma": (-1.0, 3.0)}}, "focal_gamma=-1"),
        ({"cls_loss": "focal", "space": {"focal_gamma": (0.5, float("inf"))}}, r"focal_gamma=\(0.5, inf\)"),
        ({"box_loss": "inner_ciou", "space": {"inner_ratio": (0.0, 1.2)}}, "inner_ratio=0"),
        ({"cls_loss": "ghm", "space": {"ghm_bins": (5, 20.5)}}, "ghm_bins=20.5"),
        ({"cls_loss": "focl", "space": {"lr0": (0.001, 0.01)}}, "cls_loss=focl"),
        ({"space": {"focal_gamma": (0.5, 3.0)}}, "focal_gamma=0.5"),
        ({"box_loss": "probiou", "space": {"lr0": (0.001, 0.01)}}, "box_loss=probiou"),
    ],
)
def test_a_search_that_no_run_could_make_is_refused_before_the_first(
    tmp_path: Path, data: Path, keys: dict[str, Any], named: str
) -> None:
    model = YOLO("yolov8n.yaml")
    with pytest.raises(ValueError, match=named):
        model.tune(data=str(data), iterations=1, project=str(tmp_path / "tune"), **TINY, **keys)
    assert os.listdir(tmp_path) == []


def test_the_tuner_searches_whole_numbers_among_whole_numbers(tmp_path: Path, data: Path) -> None:
    from ultralytics.engine.tuner import Tuner

    keys = {"model": "yolov8n.yaml", "data": str(data), "project": str(tmp_path), "name": "tune", "cls_loss": "ghm"}
    tuner = Tuner(args={**keys, "space": {"ghm_bins": (5, 30), "ghm_momentum": (0.1, 0.9)}, "task": "detect"})
    if not hasattr(tuner, "_save_local_result"):
        pytest.skip("this Ultralytics keeps the tuner's results elsewhere")
    tuner.tune_dir.mkdir(parents=True)
    first = {"ghm_bins": 10, "ghm_momentum": 0.75}
    tuner._save_local_result({"iteration": 1, "fitness": 0.1, "hyperparameters": first, "datasets": {}})
    drawn = [tuner._mutate() for _ in range(20)]
    assert len({found["ghm_bins"] for found in drawn}) > 1
    for found in drawn:
        assert isinstance(found["ghm_bins"], int)
        assert LossSettings.from_arguments({**keys, **found}).parameters == found
    assert any(found["ghm_momentum"] not in (0, 1) for found in drawn)  # what is no whole number stays as it was


@pytest.mark.slow
@pytest.mark.long
def test_the_tuner_trains_with_the_parameters_that_it_draws(tmp_path: Path, data: Path) -> None:
    from ultralytics.engine.tuner import Tuner

    keys = {"model": "yolov8n.yaml", "data": str(data), "project": str(tmp_path), "name": "tune", **TINY}
    # The defaults lie outside, so that every run has to show a value of the tuner's.
    space = {"focal_gamma": (2.0, 3.0), "inner_ratio": (0.8, 1.2)}
    losses = {"cls_loss": "focal", "box_loss": "inner_ciou"}
    tuner = Tuner(args={**keys, **losses, "exist_ok": False, "task": "detect", "space": space})
    drawn: list[dict[str, float]] = []
    mutate = tuner._mutate

    def mutate_and_remember(*args: Any, **kwargs: Any) -> dict[str, float]:
        drawn.append(mutate(*args, **kwargs))
        return drawn[-1]

    tuner._mutate = mutate_and_remember
    tuner(iterations=2, cleanup=False)
    assert len(drawn) == 2
    assert drawn[0] != drawn[1]
    runs = [our_keys(path.parent) for path in tmp_path.rglob("args.yaml")]
    for wanted in drawn:
        assert [run for run in runs if run.items() >= {**losses, **wanted}.items()]
    assert len(list(tmp_path.rglob("results.csv"))) == 2  # no run was refused and scored 0


@pytest.mark.slow
@pytest.mark.long
def test_ray_trains_each_trial_with_the_loss_that_it_chose(tmp_path: Path, data: Path) -> None:
    pytest.importorskip("ray.tune")
    keys = {**TINY, "exist_ok": False, "data": str(data), "project": str(tmp_path), "iterations": 2}
    done = start(sys.executable, "-c", RAY, json.dumps(keys), YOLO_AUTOINSTALL="false")().check()
    trials = json.loads(done.saying("trials: ")[0].partition("trials: ")[2])
    assert [error for _, error in trials] == ["", ""]
    trained = sorted(our_keys(path.parent)["cls_loss"] for path in tmp_path.rglob("args.yaml"))
    assert trained == sorted(choice for choice, _ in trials)
    assert len(done.saying("equipped for training and validation")) >= 1  # Ray folds equal lines of several workers


@pytest.fixture
def two_sets(data: Path, tmp_path: Path) -> list[str]:
    """Return two data sets, the second with another name."""
    second = tmp_path / "second.yaml"
    second.write_text(yaml.safe_dump({"path": str(data.parent), **yaml.safe_load(data.read_text())}))
    return [str(data), str(second)]


def test_a_bad_key_is_refused_once_for_several_data_sets(tmp_path: Path, two_sets: list[str]) -> None:
    model = YOLO("yolov8n.yaml")
    with logged() as said, pytest.raises((ValueError, RuntimeError, TypeError), match="cls_loss=focl") as refused:
        model.train(data=two_sets, cls_loss="focl", project=str(tmp_path / "runs"), **TINY)
    assert issubclass(refused.type, ValueError)
    assert not [line for line in said if "focl" in line]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_each_of_several_data_sets_is_trained_with_the_chosen_loss(tmp_path: Path, two_sets: list[str]) -> None:
    import ultralytics.engine.trainer

    if not hasattr(ultralytics.engine.trainer, "MultiTrainer"):
        pytest.skip("this Ultralytics trains on one data set at a time")
    # In an interpreter of its own: Ultralytics may train each set in a subprocess.
    keys = {**TINY, **KEYS, "data": two_sets, "project": str(tmp_path / "runs")}
    done = start(sys.executable, "-c", SEVERAL_SETS, json.dumps(keys))().check()
    assert len(done.saying("equipped for training and validation")) == 2
    assert len(done.saying("ran in the first batch with objects: class, box")) == 2
    runs = [our_keys(path.parent) for path in (tmp_path / "runs").rglob("args.yaml")]
    assert len(runs) == 2
    assert all(run.items() >= KEYS.items() for run in runs)
