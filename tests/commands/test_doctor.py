"""`yolo-losses doctor` tells whether the plugin is active in what would run, and its exit code says the same."""

from __future__ import annotations

import os
import sys
import venv
from pathlib import Path

import pytest
from conftest import SITE_PACKAGES, Result, start

from yolo_losses.commands.doctor import interpreter_of

COMMAND = "import sys\nfrom ultralytics.cfg import entrypoint\nsys.exit(entrypoint())\n"


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def doctor(folder: Path, **env: str) -> Result:
    """Run the command with this folder as the PATH."""
    return start(sys.executable, "-m", "yolo_losses", "doctor", PATH=str(folder), **env)()


@pytest.mark.slow
def test_where_yolo_is_this_environment_s_all_is_well(tmp_path: Path) -> None:
    executable(tmp_path / "yolo", f"#!{sys.executable}\n{COMMAND}")
    done = doctor(tmp_path).check()
    assert not done.saying("  NO ")
    assert done.saying("active in `yolo`") == [f"  ok  active in `yolo`, {tmp_path / 'yolo'}"]
    assert done.saying("so in DDP workers")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a console script is a program there")
def test_a_yolo_of_an_environment_without_the_plugin_is_an_error_that_names_it(tmp_path: Path) -> None:
    """It has Ultralytics, and so would say that `cls_loss` is not a valid argument."""
    venv.create(tmp_path / "other", symlinks=True)
    (site,) = (tmp_path / "other").glob("lib/python*/site-packages")
    # Packages of a folder that is added this way are found, their start-up files are not read.
    (site / "packages.pth").write_text("\n".join(SITE_PACKAGES))
    command = executable(tmp_path / "other" / "bin" / "yolo", f"#!{tmp_path}/other/bin/python\n{COMMAND}")
    done = doctor(command.parent)
    assert done.code == 1
    (line,) = done.saying("  NO ")
    assert line.startswith(f"  NO  not active in `yolo`, {command}, of another environment ({tmp_path / 'other'}): ")
    assert f"{tmp_path}/other/bin/python -m pip install yolo-losses" in line
    assert "activate " + sys.prefix in line


@pytest.mark.slow
def test_without_a_yolo_on_the_path_nothing_is_wrong(tmp_path: Path) -> None:
    assert doctor(tmp_path).check().saying("no `yolo` on the PATH")


@pytest.mark.slow
def test_what_is_switched_off_is_told_how_to_switch_on(tmp_path: Path) -> None:
    executable(tmp_path / "yolo", f"#!{sys.executable}\n{COMMAND}")
    done = doctor(tmp_path, YOLO_LOSSES_DISABLE="1")
    assert done.code == 1
    assert len(done.saying("  NO ")) == 3
    assert len(done.saying(": unset YOLO_LOSSES_DISABLE")) == 2
    assert not done.saying("python -m yolo_losses")


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


def test_a_command_without_a_python_is_told_so(tmp_path: Path) -> None:
    assert interpreter_of(str(executable(tmp_path / "yolo", "#!/bin/sh\n"))) is None
