"""Being installed: start-up files, import hooks, uninstalling, and an Ultralytics or a plugin that does not fit."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import (
    TINY,
    criterion_of,
    start,
    start_yolo,
)
from make_dataset import Task

import yolo_losses
from yolo_losses.integration.criteria import anchors

# install() and uninstall().
UNINSTALL = """
import os, sys
from ultralytics import YOLO
import ultralytics.engine.tuner, ultralytics.engine.trainer, ultralytics.cfg, ultralytics.utils.loss

def snapshot():
    found = {"meta_path": [id(finder) for finder in sys.meta_path]}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != "ultralytics":
            continue
        for key, value in list(vars(module).items()):
            found[name, key] = id(value)
            if isinstance(value, type) and value.__module__.startswith("ultralytics"):
                found.update({(name, key, attribute): id(inner) for attribute, inner in vars(value).items()})
    found["keys"] = dict(ultralytics.utils.DEFAULT_CFG_DICT)
    found["defaults"] = dict(vars(ultralytics.utils.DEFAULT_CFG))
    found["callbacks"] = repr(ultralytics.utils.callbacks.get_default_callbacks())
    return found

clean = snapshot()
del os.environ["YOLO_LOSSES_DISABLE"]
import yolo_losses
from yolo_losses import registry
from yolo_losses.integration import hook
active = snapshot()
changed = {key for key in clean if clean[key] != active[key]}
assert {"keys", "defaults"} <= changed and hook.is_active(), changed
assert len(changed) >= 5, changed
yolo_losses.install()
assert snapshot() == active, "installing twice is not installing once"
yolo_losses.uninstall()
left = snapshot()
assert left == clean, [key for key in clean if clean[key] != left.get(key)]
assert not hook.is_active()
try:
    YOLO("yolov8n.yaml").train(data="nowhere.yaml", cls_loss="focal")
except SyntaxError as error:
    assert "cls_loss" in str(error)
else:
    raise AssertionError("the key is still known")

yolo_losses.register_cls_loss("late")(lambda logits, targets, slope=2.0: logits * slope)
assert "late_slope" not in ultralytics.utils.DEFAULT_CFG_DICT, "a loss that is registered now is no key"
yolo_losses.install()
assert hook.is_active() and {"cls_loss", "focal_gamma", "late_slope"} <= set(ultralytics.utils.DEFAULT_CFG_DICT)
try:
    YOLO("yolov8n.yaml").train(data="nowhere.yaml", cls_loss="fokal")
except ValueError as error:
    assert "focal" in str(error)
else:
    raise AssertionError("installed again, nothing is checked")
print("DONE")
"""


@pytest.mark.slow
def test_uninstall_puts_everything_back_and_install_works_again() -> None:
    assert start(sys.executable, "-c", UNINSTALL, YOLO_LOSSES_DISABLE="1")().check().lines[-1] == "DONE"


# Start-up files that did not run, callbacks that were reset.
LATE_IMPORT = """
import json, sys
from ultralytics import YOLO
model = YOLO("yolov8n.yaml")
assert "yolo_losses" not in sys.modules
import yolo_losses
model.reset_callbacks()
model.train(data=sys.argv[1], project=sys.argv[2], cls_loss="slide", **json.loads(sys.argv[3]))
assert model.trainer.yolo_losses_run.equipment.proven
print("DONE")
"""


@pytest.mark.slow
def test_importing_the_package_after_the_model_was_built_is_enough(tmp_path: Path, data: Path) -> None:
    paths = f"import sys\nsys.path += {[p for p in sys.path if p]!r}\n"
    code = ["-S", "-c", paths + LATE_IMPORT, str(data), str(tmp_path), json.dumps(TINY)]
    assert start(sys.executable, *code)().check().lines[-1] == "DONE"


# Which modules are patched is known to the hook alone; the start-up file knows the name of Ultralytics.
ORDERS = """
import importlib, sys
order, other = sys.argv[1:]
if order == "the package first":
    import yolo_losses
import ultralytics
if order == "the package last":
    from ultralytics import YOLO
    assert "yolo_losses" not in sys.modules
    import yolo_losses
hook = sys.modules["yolo_losses.integration.hook"]  # imported by now
names = list(hook.PATCHES)
seen = []
hook.PATCHES[other] = seen.append  # no copy of the list would have it
for name in [*(reversed(names) if order == "reversed" else names), other]:
    importlib.import_module(name)
assert seen == [sys.modules[other]]
for name in names:
    own = [value for value in vars(sys.modules[name]).values() if getattr(value, "__module__", "") == name]
    members = [member for kind in own if isinstance(kind, type) for member in vars(kind).values()]
    assert any(hasattr(member, "yolo_losses_original") for member in own + members), name
assert hook.is_active() and "cls_loss" in ultralytics.utils.DEFAULT_CFG_DICT
print("DONE")
"""


@pytest.mark.slow
@pytest.mark.parametrize("order", ["as listed", "reversed", "the package first", "the package last"])
def test_each_module_that_the_hook_lists_is_patched_whatever_is_imported_first(order: str, tmp_path: Path) -> None:
    env: dict[str, str] = {}
    if order == "the package last":  # a start-up file that does nothing; the package does without its functions
        (tmp_path / "yolo_losses_autoload.py").write_text("def install(): pass\n", encoding="utf-8")
        env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = start(sys.executable, "-c", ORDERS, order, "ultralytics.utils.benchmarks", **env)().check()
    assert result.lines[-1] == "DONE"
    assert not result.saying("yolo_losses: ")


SWITCHED_OFF = """
import os, sys
os.environ["YOLO_LOSSES_DISABLE"] = "1"
from ultralytics.engine import trainer
from ultralytics.utils import DEFAULT_CFG_DICT
import yolo_losses
from yolo_losses.integration import hook
assert not hook.is_active() and "cls_loss" not in DEFAULT_CFG_DICT
print("DONE")
"""


@pytest.mark.slow
def test_a_program_switches_it_off_before_it_imports_ultralytics() -> None:
    assert start(sys.executable, "-c", SWITCHED_OFF)().check().lines[-1] == "DONE"


# Other import hooks, broken plug-ins, an Ultralytics that has moved.
TWO_HOOKS = """
import sys
seen = []

class Other:
    # Wraps what the finders behind it find, as tracing tools do.
    def __init__(self, name):
        self.name, self.busy = name, set()
    def find_spec(self, fullname, path=None, target=None):
        if not fullname.startswith("ultralytics") or fullname in self.busy:
            return None
        self.busy.add(fullname)
        try:
            behind = sys.meta_path[sys.meta_path.index(self) + 1:]
            spec = next(filter(None, (f.find_spec(fullname, path, target) for f in behind)), None)
        finally:
            self.busy.discard(fullname)
        if spec is not None and spec.loader is not None:
            body = spec.loader.exec_module
            def exec_module(module):
                body(module)
                seen.append((self.name, fullname))
            spec.loader.exec_module = exec_module
        return spec

ours = [f for f in sys.meta_path if type(f).__name__ == "PostImportFinder"]
assert len(ours) == 1 and sys.meta_path[0] is ours[0]
sys.meta_path.insert(1, Other("behind"))
sys.meta_path.insert(0, Other("before"))
from ultralytics.engine import trainer, tuner
from ultralytics.utils import DEFAULT_CFG_DICT
from yolo_losses.integration import hook
assert hook.is_active() and "cls_loss" in DEFAULT_CFG_DICT
assert hasattr(tuner.Tuner.__init__, "yolo_losses_original")
for module in ("ultralytics.cfg", "ultralytics.engine.trainer", "ultralytics.engine.tuner", "ultralytics.utils.loss"):
    assert seen.count(("before", module)) == seen.count(("behind", module)) == 1, (module, seen)
print("DONE")
"""


@pytest.mark.slow
def test_import_hooks_in_front_and_behind_see_what_they_would_see() -> None:
    assert start(sys.executable, "-c", TWO_HOOKS)().check().lines[-1] == "DONE"


def broken_package(folder: Path, text: str) -> dict[str, str]:
    """Return variables with which a broken `yolo_losses` is found before this one."""
    (folder / "yolo_losses" / "integration").mkdir(parents=True)
    (folder / "yolo_losses" / "__init__.py").write_text("", encoding="utf-8")
    (folder / "yolo_losses" / "integration" / "hook.py").write_text(text, encoding="utf-8")
    return {"PYTHONPATH": str(folder)}


FAULTS: dict[str, tuple[str, str]] = {
    "it raises": ("raise RuntimeError('first line\\nsecond line')", "RuntimeError: first line second line"),
    "it is not Python": ("def (:", "SyntaxError: "),
    "a function is missing": ("x = 1", "AttributeError: "),
    "it wants a package that is gone": ("import nowhere_to_be_found", "ModuleNotFoundError: No module named"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_plugin_is_one_line_and_ultralytics_works(fault: str, tmp_path: Path) -> None:
    text, words = FAULTS[fault]
    code = "from ultralytics.cfg import get_cfg; print(get_cfg(overrides={'epochs': 3}).epochs)"
    result = start(sys.executable, "-c", code, **broken_package(tmp_path, text))().check()
    assert result.lines[-1] == "3"
    told = result.saying("yolo_losses: ")
    assert len(told) == 1, told
    assert told[0].startswith(f"yolo_losses: not active: {words}")


@pytest.mark.slow
def test_a_plugin_that_is_not_active_trains_no_stock_run_in_silence(tmp_path: Path) -> None:
    broken = broken_package(tmp_path, "raise RuntimeError('no')")
    result = start_yolo("train", "model=yolov8n.yaml", "data=nowhere.yaml", "cls_loss=focal", **broken)()
    assert result.code == 1
    assert "'cls_loss' is not a valid YOLO argument" in result.text


MOVED = """
import sys
from importlib.machinery import SourceFileLoader as Loader

# Another version, without the method or the name: changed as the source is read, which no cache may stand in for.
changes = {
    "check_resume": ("engine/trainer.py", lambda text: text.replace(b"check_resume", b"look_for_resume")),
    "torch_utils": ("utils/torch_utils.py", lambda text: text + b"\\ndel DEFAULT_CFG_DICT"),
}
end, change = changes[sys.argv[1]]
read, stats = Loader.get_data, Loader.path_stats

def path_stats(self, path):
    if path.endswith(end):
        raise OSError
    return stats(self, path)

Loader.path_stats = path_stats
Loader.get_data = lambda self, path: change(read(self, path)) if path.endswith(end) else read(self, path)
from ultralytics import YOLO
try:
    YOLO("yolov8n.yaml").train(data="nowhere.yaml", cls_loss="focal")
except SyntaxError as error:
    print("REFUSED" if "cls_loss" in str(error) else error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moved", "words"),
    [
        ("check_resume", "this Ultralytics has no BaseTrainer.check_resume"),
        ("torch_utils", "this Ultralytics has no ultralytics.utils.torch_utils.DEFAULT_CFG_DICT"),
    ],
)
def test_a_trainer_whose_part_has_moved_is_named_and_the_keys_are_refused(moved: str, words: str) -> None:
    result = start(sys.executable, "-c", MOVED, moved)().check()
    assert result.saying("yolo_losses: ") == [f"yolo_losses: not active: RuntimeError: {words}"]
    assert result.lines[-1] == "REFUSED"


def test_a_criterion_without_its_parts_is_named_by_the_first_that_is_gone() -> None:
    for part in anchors.PARTS:
        own = criterion_of("v8")
        delattr(own, part)
        with pytest.raises(RuntimeError, match=rf"v8DetectionLoss has no '{part}'") as caught:
            yolo_losses.equip(own, {"cls_loss": "focal"})
        assert "\n" not in str(caught.value)


def test_a_criterion_of_another_kind_is_refused_with_the_key() -> None:
    with pytest.raises(ValueError, match=r"'cls_loss=focal' cannot be used with CrossEntropyLoss"):
        yolo_losses.equip(torch.nn.CrossEntropyLoss(), {"cls_loss": "focal"})


@pytest.mark.slow
def test_a_plugin_file_with_an_error_is_one_line_and_training_goes_on(
    tmp_path: Path, datasets: Callable[[Task], Path]
) -> None:
    (tmp_path / "mine.py").write_text("import yolo_losses\nraise KeyError('oh\\nno')\n", encoding="utf-8")
    options = [f"{key}={value}" for key, value in {**TINY, "project": tmp_path, "cls_loss": "focal"}.items()]
    command = ["train", "model=yolov8n.yaml", f"data={datasets('detect')}", *options]
    result = start_yolo(*command, YOLO_LOSSES_PLUGINS=str(tmp_path / "mine.py"))().check()
    told = result.saying("plugin left out")
    assert len(told) == 1, told
    assert str(tmp_path / "mine.py") in told[0]
    assert result.saying("ran in the first batch")
