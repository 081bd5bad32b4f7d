"""`yolo-losses doctor` tells whether the plugin is active in what would run, and its exit code says the same."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import site
import sys
import venv
from pathlib import Path

import pytest
from conftest import SITE_PACKAGES, Result, start

import yolo_losses
from yolo_losses.commands import doctor as doctor_
from yolo_losses.commands.doctor import interpreter_of
from yolo_losses.config import renaming, settings
from yolo_losses.integration import hook

AUTOLOAD = Path(yolo_losses.__file__).parent / "integration" / "autoload"

COMMAND = "import sys\nfrom ultralytics.cfg import entrypoint\nsys.exit(entrypoint())\n"


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


RAY = """
from types import SimpleNamespace
def init(**options): {init}
def remote(**options): return lambda function: SimpleNamespace(remote=function)
def get(result, timeout): return result
"""
KERNELS = """
import json, sys
assert sys.argv[1:] == ["kernelspec", "list", "--json"]
print(json.dumps({{"kernelspecs": {{
    "python3": {{"spec": {{"argv": ["python", "-m", "ipykernel_launcher"], "language": "python"}}}},
    "other": {{"spec": {{"argv": [{other!r}, "-m", "ipykernel_launcher"], "language": "python"}}}},
    "ir": {{"spec": {{"argv": ["R"], "language": "R"}}}},
}}}}))
"""


def doctor(folder: Path, ray: str = 'raise OSError("no cluster here")', **env: str) -> Result:
    """Run the command with this folder as the PATH, and with a stub of Ray that runs tasks in this process."""
    (folder / "stub").mkdir(exist_ok=True)
    (folder / "stub" / "ray.py").write_text(RAY.format(init=ray))
    path = os.pathsep.join([str(folder / "stub"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return start(sys.executable, "-m", "yolo_losses", "doctor", PATH=str(folder), PYTHONPATH=path, **env)()


def other_environment(folder: Path) -> Path:
    """Return the Python of an environment that has Ultralytics, and not the plugin's start-up files."""
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # Packages of a folder that is added this way are found, their start-up files are not read.
    (site / "packages.pth").write_text("\n".join(SITE_PACKAGES))
    return folder / "bin" / "python"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a console script is a program there")
def test_without_a_problem_every_place_is_listed(tmp_path: Path) -> None:
    """A notebook kernel of another environment is no fault of this one."""
    other = other_environment(tmp_path / "other")
    executable(tmp_path / "yolo", f"#!{sys.executable}\n{COMMAND}")
    executable(tmp_path / "jupyter", f"#!{sys.executable}\n{KERNELS.format(other=str(other))}")
    done = doctor(tmp_path, ray="pass").check()
    assert not done.saying("  NO ")
    (site,) = {folder for folder in SITE_PACKAGES if (Path(folder) / "yolo_losses.pth").is_file()}
    for place in (
        f"start-up files in {os.path.realpath(site)}: yolo_losses.pth, ",
        "active in this interpreter",
        "active in a fresh interpreter, so in DDP workers",
        f"active in `yolo`, {tmp_path / 'yolo'}",
        f"active in the notebook kernel python3, {sys.executable}; ",
        f"active in Ray's workers ({sys.prefix})",
        f"all {len(settings.default_keys())} keys are",
    ):
        assert done.saying(f"  ok  {place}"), place
    (line,) = done.saying("the notebook kernel other is of another environment")
    assert line.startswith("  --  ")
    assert f"`{other} -m pip install yolo-losses`" in line
    assert len(done.saying("not active in `python -S`, which reads no start-up files")) == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a console script is a program there")
def test_a_yolo_of_an_environment_without_the_plugin_is_an_error_that_names_it(tmp_path: Path) -> None:
    """It has Ultralytics, and so would say that `cls_loss` is not a valid argument."""
    python = other_environment(tmp_path / "other")
    command = executable(python.with_name("yolo"), f"#!{python}\n{COMMAND}")
    done = doctor(command.parent)
    assert done.code == 1
    (line,) = done.saying("  NO ")
    assert line.startswith(f"  NO  not active in `yolo`, {command}, of another environment ({tmp_path / 'other'}): ")
    assert f"{python} -m pip install yolo-losses" in line
    assert "activate " + sys.prefix in line


@pytest.mark.slow
def test_missing_programs_are_no_error(tmp_path: Path) -> None:
    done = doctor(tmp_path).check()
    assert done.saying("  --  no `yolo` on the PATH")
    assert done.saying("  --  no Jupyter kernel")
    assert done.saying("  --  Ray's workers were not asked: OSError: no cluster here")


@pytest.mark.slow
def test_a_disabled_plugin_is_reported_with_the_variable_to_unset(tmp_path: Path) -> None:
    executable(tmp_path / "yolo", f"#!{sys.executable}\n{COMMAND}")
    done = doctor(tmp_path, ray="pass", YOLO_LOSSES_DISABLE="1")
    assert done.code == 1
    assert len(done.saying("  NO  not active in ")) == len(done.saying("  NO ")) == 4  # here, afresh, `yolo`, Ray
    assert len(done.saying(": unset YOLO_LOSSES_DISABLE")) == 4
    assert "YOLO_LOSSES_DISABLE=1" in done.lines
    assert not done.saying("python -m yolo_losses")


@pytest.mark.slow
@pytest.mark.long
def test_a_worker_of_ray_is_checked(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    done = start(sys.executable, "-m", "yolo_losses", "doctor")()
    assert done.saying(f"  ok  active in Ray's workers ({sys.prefix})"), done.text


@pytest.fixture
def site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the start-up files, the only one on the path and the only one of site-packages."""
    folder = tmp_path / "site-packages"
    shutil.copytree(AUTOLOAD, folder)
    monkeypatch.setattr(sys, "path", [str(folder)])
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(folder)])
    return folder.resolve()


def test_start_up_files_are_whole_current_and_where_python_reads_them(
    site_packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [mark for mark, _ in doctor_.start_up_files()] == ["ok"]
    (site_packages / "yolo_losses.pth").write_text("import yolo_losses_autoload\n")
    ((mark, text),) = doctor_.start_up_files()
    assert mark == "NO"
    assert text.startswith(f"start-up files in {site_packages}: yolo_losses.pth differs from that in ")
    assert f"{sys.executable} -m pip install --force-reinstall --no-deps --editable " in text
    for name in ("yolo_losses_autoload.py", "yolo_losses.pth"):
        (site_packages / name).unlink()
        ((mark, text),) = doctor_.start_up_files()
        assert mark == "NO"
        assert f"{name} is missing" in text
    monkeypatch.setattr(site, "getsitepackages", list)
    (_, text), (mark, remedy) = doctor_.start_up_files()
    assert text == f"start-up files in {site_packages} are not read: the folder is not a site-packages folder"
    assert mark == "NO"
    assert "python -m yolo_losses train" in remedy


def test_an_outdated_ultralytics_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor_.outdated() == []
    monkeypatch.setattr(importlib.metadata, "version", {"ultralytics": "8.2.103", "torch": "2.3.0"}.__getitem__)
    ((mark, text),) = doctor_.outdated()
    assert mark == "NO"
    assert text.startswith("ultralytics 8.2.103 is older than 8.3.108: ")


def test_a_key_that_ultralytics_has_too_is_named_with_the_one_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "is_active", lambda: True)
    renaming.rename({"cls_target"})
    try:
        ((mark, text),) = doctor_.keys()
    finally:
        renaming.rename(set())
    assert mark == "--"
    assert "cls_target is Ultralytics' own" in text
    assert text.endswith("use yl_cls_target")


def test_the_reason_for_a_failed_load_is_reported(tmp_path: Path) -> None:
    failing = "import sys; print('yolo_losses: not active: ImportError: x', file=sys.stderr); print('p\\nFalse')"
    answer = doctor_.ask([sys.executable, "-c", failing])
    assert answer == doctor_.Answer("p", False, "yolo_losses: not active: ImportError: x")
    assert doctor_.ask([str(tmp_path / "python")]).reason == "no answer: No such file or directory"


@pytest.mark.skipif(os.name == "nt", reason="file modes")
@pytest.mark.parametrize(
    ("script", "python"),
    [
        ("#!{0}/a/bin/python3.11\n", "a/bin/python3.11"),
        ("#!{0}/python fans/bin/python\r\n", "python fans/bin/python"),
        ("#!/usr/bin/env python3\n", "path/python3"),
        ("#!/bin/sh\n'''exec' {0}/a/bin/python3.11 \"$0\" \"$@\"\n' '''\n", "a/bin/python3.11"),
        ("#!/bin/sh\n'''exec' \"{0}/python fans/bin/python\" \"$0\" \"$@\"\n' '''\n", "python fans/bin/python"),
        ("#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python' \"$0\"\n' '''\n", "bin/python"),
        ("#!/usr/bin/env bash\nexec pyenv exec yolo\n", "bin/python"),
        ("#!{0}/gone/bin/python\n", "bin/python"),
    ],
    ids=["pip", "a space", "env", "a long path", "exec and a space", "relocatable", "shim", "gone"],
)
def test_the_interpreter_is_the_one_that_the_command_names(
    script: str, python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("a/bin/python3.11", "python fans/bin/python", "path/python3", "bin/python"):
        executable(tmp_path / path, "")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    command = executable(tmp_path / "bin" / "yolo", script.format(tmp_path) + COMMAND)
    assert interpreter_of(str(command)) == str(tmp_path / python)


@pytest.mark.parametrize("python", ["Scripts/python.exe", "python.exe"], ids=["environment", "installation"])
def test_a_program_in_the_scripts_folder_runs_the_python_beside_or_above_it(python: str, tmp_path: Path) -> None:
    executable(tmp_path / python, "")
    command = executable(tmp_path / "Scripts" / "yolo.exe", "MZ\x00\x00")
    assert interpreter_of(str(command)) == str(tmp_path / python)


def test_a_command_without_a_python_is_reported(tmp_path: Path) -> None:
    assert interpreter_of(str(executable(tmp_path / "yolo", "#!/bin/sh\n"))) is None
