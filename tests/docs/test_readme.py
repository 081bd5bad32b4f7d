"""What the README says is so: its commands train, and its Python runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, TINY

from yolo_losses import commands, registry

TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, flags=re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines() if line.startswith("yolo ")]
PYTHON = [block for kind, block in BLOCKS if kind == "python"]


@pytest.fixture
def desk(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the reader's `my.yaml`, where every training is a tiny one."""
    from ultralytics.engine.model import Model

    described = yaml.safe_load(data.read_text())
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({**described, "path": str(data.parent)}))
    monkeypatch.chdir(tmp_path)
    train = Model.train

    def tiny(self: Any, *args: Any, **kwargs: Any) -> Any:
        return train(self, *args, **{**TINY, "project": str(tmp_path / "runs"), **kwargs})

    monkeypatch.setattr(Model, "train", tiny)
    return tmp_path


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_train(line: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ultralytics.cfg import entrypoint

    def path(match: re.Match[str]) -> str:
        assert commands.main(["config", match[1]]) == 0
        return capsys.readouterr().out.strip()

    entrypoint(re.sub(r"\$\(yolo-losses config (\w+)\)", path, line))
    assert list(desk.glob("runs/**/best.pt"))


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_the_python_blocks_run(block: str, desk: Path) -> None:
    known = {(spec.kind, spec.name) for spec in registry.specs()}
    try:
        exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
    finally:
        for spec in registry.specs():
            if (spec.kind, spec.name) not in known:
                registry.remove(spec.kind, spec.name)


def test_badges_say_what_is_declared() -> None:
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    said = dict(re.findall(r"img\.shields\.io/badge/(\w+)-((?:[^-)]|--)+)-blue", TEXT))
    pythons = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', declared)
    assert said["python"] == f"{pythons[0]}_to_{pythons[-1]}"
    assert f'"ultralytics>={said["ultralytics"].partition("_")[0]}"' in declared
    assert f'license = "{said["licence"].replace("--", "-")}"' in declared
    for workflow in re.findall(r"workflows/([\w.]+)/badge\.svg", TEXT):
        assert (ROOT / ".github" / "workflows" / workflow).is_file()


def test_there_are_blocks_to_run() -> None:
    assert len(COMMANDS) >= 3
    assert len(PYTHON) >= 3


@pytest.mark.parametrize("command", ["list", "list -v", "list slide", "config slide", "config"])
def test_the_own_commands_answer(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "yolo_losses", *command.split()],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
