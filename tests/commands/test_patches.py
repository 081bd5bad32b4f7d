"""The patch kit: every diff applies to its version and can be removed; patched packages train with the chosen loss."""

from __future__ import annotations

import csv
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import ROOT, SITE_PACKAGES, TINY, Result, pairs, start

from yolo_losses import commands
from yolo_losses.commands import patch as kit
from yolo_losses.config.settings import CHOICES
from yolo_losses.integration import hook

VERSIONS = ("8.1.34", "8.2.103", "8.3.253", "8.4.190")
FILES = ("cfg/default.yaml", "engine/trainer.py", "utils/__init__.py")
# Pristine packages, and 6 GB for the environment of 2024, if the long tests have made it.
CACHE = Path(
    os.environ.get("YOLO_LOSSES_PATCH_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "yolo-losses-patches"
)
TOO_NEW = {"torch": "<2.6", "torchvision": "<0.21", "numpy": "<2", "opencv-python": "<4.11"}
OLD_PACKAGES = (
    "matplotlib pandas pillow psutil py-cpuinfo pyyaml requests scipy seaborn setuptools tqdm ultralytics-thop"
)
YOLO = "from ultralytics.cfg import entrypoint; entrypoint()"

# As little of an Ultralytics as the patches look for.
SKELETON = {
    "__init__.py": '__version__ = "8.3.253"\n',
    FILES[0]: "erasing: 0.4\n\n# Custom config.yaml " + "-" * 99 + "\ncfg:\n",
    FILES[1]: "class BaseTrainer:\n    def __init__(self):\n"
    "        init_seeds(self.args.seed + 1 + RANK, deterministic=self.args.deterministic)\n\n        # Dirs\n",
    FILES[2]: "DEFAULT_CFG = IterableSimpleNamespace(**DEFAULT_CFG_DICT)\n\n\ndef read_device_model():\n    pass\n",
}

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="no git here")


def contents(package: Path) -> dict[str, bytes]:
    return {str(p.relative_to(package)): p.read_bytes() for p in sorted(package.rglob("*")) if p.is_file()}


def pristine(version: str) -> Path:
    """Return the folder that a version's wheel was unpacked to."""
    folder = CACHE / version
    if not folder.is_dir():
        with tempfile.TemporaryDirectory() as fresh:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            done = subprocess.run(
                [*command, "--dest", fresh, f"ultralytics=={version}"], capture_output=True, text=True
            )
            if done.returncode:
                pytest.skip(f"pip has no ultralytics {version} here: {done.stderr.strip().splitlines()[-1:]}")
            (wheel,) = Path(fresh).glob("*.whl")
            zipfile.ZipFile(wheel).extractall(Path(fresh) / "unpacked")
            CACHE.mkdir(parents=True, exist_ok=True)
            shutil.copytree(Path(fresh) / "unpacked", folder)
    return folder


def copy_of(version: str, folder: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", "assets")
    return Path(shutil.copytree(pristine(version) / "ultralytics", folder / "ultralytics", ignore=ignored))


def patch(*args: str | Path) -> int:
    return commands.main(["patch", *map(str, args)])


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return the skeleton of a package, which needs neither the network nor the real files."""
    folder = tmp_path / "fork" / "ultralytics"
    for name, text in SKELETON.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    return folder


def test_there_is_a_patch_for_each_version() -> None:
    assert sorted(p.name for p in kit.folder().glob("*.patch")) == sorted(f"ultralytics-{v}.patch" for v in VERSIONS)


@pytest.mark.parametrize("version", VERSIONS)
def test_patch_adds_the_choices_at_their_defaults_and_takes_nothing_away(version: str) -> None:
    text = (kit.folder() / f"ultralytics-{version}.patch").read_text(encoding="utf-8")
    assert re.findall(r"^\+\+\+ b/ultralytics/(.+)$", text, re.MULTILINE) == list(FILES)
    assert not re.search(r"^-(?!-- )", text, re.MULTILINE)
    added = text.split("diff --git ")[1].replace("+++ ", "").splitlines()
    assert yaml.safe_load("\n".join(line[1:] for line in added if line.startswith("+"))) == dict(CHOICES)


@needs_git
@pytest.mark.parametrize("version", VERSIONS)
def test_a_patch_applies_to_its_version_and_can_be_removed(
    version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = copy_of(version, tmp_path)
    before = contents(package)

    diff = kit.folder() / f"ultralytics-{version}.patch"
    verbose = subprocess.run(
        ["git", "apply", "--check", "--verbose", diff],
        cwd=tmp_path,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)},
        capture_output=True,
        text=True,
    )
    assert verbose.returncode == 0
    assert "offset" not in verbose.stderr  # the line numbers are this version's

    assert patch(tmp_path) == 0
    assert f"ultralytics-{version}.patch applied" in capsys.readouterr().out
    after = contents(package)
    assert {name for name in after if after[name] != before.get(name)} == set(FILES)
    keys = yaml.safe_load(after[FILES[0]])
    assert {key: keys[key] for key in CHOICES} == dict(CHOICES)
    for name in FILES[1:]:
        compile(after[name], name, "exec")

    assert patch(tmp_path, "--reverse") == 0
    assert contents(package) == before


@needs_git
def test_the_path_may_be_the_package_or_its_parent_under_any_name(package: Path) -> None:
    before = contents(package)
    assert patch(package.parent) == 0
    after = contents(package)
    assert after != before
    assert patch(package, "--reverse") == 0
    assert contents(package) == before
    renamed = package.rename(package.with_name("our_yolo"))
    assert patch(renamed) == 0
    assert contents(renamed) == after


@needs_git
def test_check_changes_nothing_and_a_second_apply_has_no_effect(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    states = [contents(package)]
    for args, words in (
        (["--check"], "would be applied"),
        (["--reverse"], "not patched"),
        ([], "ultralytics-8.3.253.patch applied"),
        ([], "already patched"),
        (["--check"], "already patched"),
        (["--check", "--reverse"], "would be removed"),
        (["--reverse"], "removed"),
    ):
        assert patch(package, *args) == 0
        assert words in capsys.readouterr().out
        states.append(contents(package))
    pristine_state, patched = states[0], states[3]
    assert patched != pristine_state
    assert states == [pristine_state] * 3 + [patched] * 4 + [pristine_state]


@needs_git
def test_windows_line_endings_are_kept(package: Path) -> None:
    for name in FILES:
        (package / name).write_bytes((package / name).read_bytes().replace(b"\n", b"\r\n"))
    before = contents(package)
    assert patch(package) == 0
    for name in FILES:
        assert (package / name).read_bytes().count(b"\r\n") == (package / name).read_bytes().count(b"\n")
    assert patch(package, "--reverse") == 0
    assert contents(package) == before


@needs_git
@pytest.mark.parametrize("where", ["above", "at the checkout", "in the environment"])
def test_works_inside_another_repository(
    where: str, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = package.parent if where == "at the checkout" else tmp_path
    subprocess.run(["git", "init", "--quiet", repository], check=True)
    if where == "in the environment":  # as in a hook
        monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
        monkeypatch.setenv("GIT_WORK_TREE", str(repository))
    assert patch(package) == 0
    assert all("yolo_losses" in (package / name).read_text() for name in FILES)


def refusal(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    """Return the error message of a call, which has to be one line."""
    assert patch(*args) == 1
    said = capsys.readouterr()
    assert not said.out
    (line,) = said.err.splitlines()
    return line


@needs_git
def test_a_package_that_no_patch_fits_is_rejected(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "does not exist" in refusal(capsys, tmp_path / "nowhere")
    (tmp_path / "garbage").mkdir()
    (tmp_path / "garbage" / "ultralytics").write_text("not a folder")
    assert "neither the folder nor an 'ultralytics' in it" in refusal(capsys, tmp_path / "garbage")

    trainer = package / FILES[1]
    trainer.write_text(trainer.read_text().replace("init_seeds(", "seed_everything("))
    before = contents(package)
    for args in ([], ["--check"]):
        line = refusal(capsys, package, *args)
        assert "no patch fits, nothing changed: engine/trainer.py" in line
        assert "default.yaml" not in line
    assert "can be removed, nothing changed" in refusal(capsys, package, "--reverse")
    assert contents(package) == before
    (package / FILES[2]).unlink()
    assert f"{FILES[2]}: No such file" in refusal(capsys, package)


@needs_git
@pytest.mark.skipif(os.pathsep != ":", reason="about a ':' in a path")
def test_files_that_git_would_skip_are_rejected(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    odd = package.parent.rename(tmp_path / "a:b")
    assert "git apply skips the files" in refusal(capsys, odd)


def test_without_git(package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "")
    assert "git is not on the PATH" in refusal(capsys, package)


@needs_git
def test_files_are_restored_if_git_fails(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(package)
    git_apply = kit._git_apply

    def full_disk(package: Path, patch: Path, reverse: bool, *options: str) -> subprocess.CompletedProcess[bytes]:
        done = git_apply(package, patch, reverse, *options)
        if not options:
            (package / FILES[1]).unlink()
            done.returncode, done.stderr = 1, b"error: unable to write\n"
        return done

    monkeypatch.setattr(kit, "_git_apply", full_disk)
    assert "nothing changed: error: unable to write" in refusal(capsys, package)
    assert contents(package) == before


def test_a_patched_ultralytics_never_trains_a_chosen_loss_as_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "is_active", lambda: True)
    hook.require_active(SimpleNamespace(**{**CHOICES, "cls_loss": "slide"}))
    monkeypatch.setattr(hook, "is_active", lambda: False)
    hook.require_active(SimpleNamespace(**CHOICES, model="yolov8n.yaml"))
    with pytest.raises(RuntimeError, match="'cls_loss=slide' needs yolo_losses, not active here"):
        hook.require_active(SimpleNamespace(**{**CHOICES, "cls_loss": "slide"}))


# From here on: trainings.


def patched(version: str, folder: Path) -> Path:
    copy_of(version, folder)
    assert patch(folder) == 0
    return folder


def train(
    python: str | Path, paths: list[Path | str], save_in: Path, *args: str, start_up: bool = False, **env: str
) -> Result:
    """Train in an interpreter that finds what lies in `paths`, with or without running start-up files."""
    options = [] if start_up else ["-S"]
    env = {"PYTHONPATH": os.pathsep.join(map(str, paths)), "YOLO_CONFIG_DIR": str(save_in), **env}
    keys = pairs(**TINY, project=save_in, name="run")
    return start(python, *options, "-c", YOLO, "train", *keys, *args, **env)()


def results(save_in: Path) -> list[dict[str, float]]:
    """Return the numbers that a run logged, except the times."""
    with (save_in / "run" / "results.csv").open() as file:
        rows = list(csv.DictReader(file, skipinitialspace=True))
    return [{key.strip(): float(value) for key, value in row.items() if key.strip() != "time"} for row in rows]


CHOSEN = ("model=yolov8n.yaml", "cls_loss=vfl", "vfl_gamma=1.5", "box_loss=inner_siou")


@pytest.mark.long
@pytest.mark.parametrize("version", ["8.3.253", "8.4.190"])
def test_patched_and_plugged_give_the_same_numbers(version: str, tmp_path: Path, data: Path) -> None:
    folder = patched(version, tmp_path)
    here: list[Path | str] = [ROOT, *SITE_PACKAGES]

    run = train(sys.executable, [folder, *here], tmp_path / "patched", *CHOSEN, f"data={data}").check()
    assert run.saying("yolo_losses: ran in the first batch with objects: class, box")
    plugged = train(sys.executable, [pristine(version)], tmp_path / "plugged", *CHOSEN, f"data={data}", start_up=True)
    assert plugged.check().saying("yolo_losses: ran in the first batch with objects: class, box")
    assert results(tmp_path / "patched") == results(tmp_path / "plugged")

    stock = train(sys.executable, [folder, *here], tmp_path / "stock", CHOSEN[0], f"data={data}").check()
    assert not stock.saying("yolo_losses")
    assert results(tmp_path / "stock") != results(tmp_path / "patched")
    assert not set(CHOICES) & set(yaml.safe_load((tmp_path / "stock" / "run" / "args.yaml").read_text()))
    keys = "import sys, torch; print(*torch.load(sys.argv[1], weights_only=False)['train_args'])"
    best = tmp_path / "stock" / "run" / "weights" / "best.pt"
    listed = start(
        sys.executable, "-S", "-c", keys, best, PYTHONPATH=os.pathsep.join(map(str, [folder, *SITE_PACKAGES]))
    )()
    assert "epochs" in listed.check().text.split()
    assert not set(CHOICES) & set(listed.text.split())

    # What the plugin's part in the above was: the pristine package does not know the keys, and with the plugin switched
    # off the patched one, whose own they are, refuses them.
    chosen = (CHOSEN[0], "cls_loss=vfl", f"data={data}")
    unknown = train(sys.executable, [pristine(version), *here], tmp_path / "unknown", *chosen)
    assert unknown.code
    assert unknown.saying("is not a valid YOLO argument")
    off = train(sys.executable, [folder, *here], tmp_path / "off", *chosen, YOLO_LOSSES_DISABLE="1")
    assert off.code
    assert "'cls_loss=vfl' needs yolo_losses" in off.lines[-1]


@pytest.fixture(scope="session")
def old_python() -> Path:
    """The interpreter of an environment as of 2024, made once."""
    folder = CACHE / "environment-2024"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (folder / "complete").exists():
        fitting = [p for v in (11, 12, 10) if (p := shutil.which(f"python3.{v}"))]
        if (3, 10) <= sys.version_info < (3, 13):
            fitting.insert(0, sys.executable)
        if not fitting:
            pytest.skip("needs a Python of 3.10 to 3.12, for which there are a torch and a numpy of 2024")
        packages = [name + limit for name, limit in TOO_NEW.items()] + OLD_PACKAGES.split()
        for command in (
            [fitting[0], "-m", "venv", "--clear", folder],
            [python, "-m", "pip", "install", "--quiet", *packages],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no environment of 2024 to be had: {done.stderr.strip().splitlines()[-1:]}")
        (folder / "complete").touch()
    return python


@pytest.mark.long
@pytest.mark.parametrize(
    ("version", "model", "chosen"),
    [
        ("8.1.34", "yolov8n.yaml", {"cls_loss": "slide", "box_loss": "inner_ciou", "dfl_loss": "dfl"}),
        ("8.2.103", "yolov8n.yaml", {"cls_loss": "vfl", "box_loss": "siou", "dfl_loss": "off"}),
        ("8.2.103", "yolov10n.yaml", {"cls_loss": "focal", "box_loss": "giou", "loss_branches": "one2many"}),
    ],
)
def test_old_versions_train_in_an_environment_of_their_time(
    version: str, model: str, chosen: dict[str, str], tmp_path: Path, data: Path, old_python: Path
) -> None:
    folder = patched(version, tmp_path)
    args = (f"model={model}", f"data={data}")
    # Start-up files run here, but there is none of this package, which lies on the path and nowhere else.
    train_old = functools.partial(train, old_python, start_up=True)
    run = train_old([folder, ROOT], tmp_path / "patched", *args, *pairs(**chosen)).check()
    said = run.saying("yolo_losses: ran in the first batch")
    assert said
    assert all(
        name in run.saying("equipped for training and validation")[0] for name in chosen.values() if name != "one2many"
    )
    (row,) = results(tmp_path / "patched")
    assert all(value == value and abs(value) < 1e6 for value in row.values())

    # Its checkpoint is anyone's: the pristine package validates it without the plugin.
    weights = tmp_path / "patched" / "run" / "weights" / "last.pt"
    code = "import sys; from ultralytics import YOLO; YOLO(sys.argv[1]).val(data=sys.argv[2], imgsz=64, plots=False)"
    env = {"PYTHONPATH": str(pristine(version)), "YOLO_CONFIG_DIR": str(tmp_path / "val")}
    start(old_python, "-c", code, weights, data, **env)().check()
    # And without the plugin, the patched package trains nothing.
    without = train_old([folder], tmp_path / "without", *args)
    assert without.code
    assert "No module named 'yolo_losses'" in without.lines[-1]
