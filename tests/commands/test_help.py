"""`--version`, and `--help` of every command."""

from __future__ import annotations

import importlib
import pkgutil
import re
import shlex

import pytest

import yolo_losses
from yolo_losses import commands

MODULES = [f"{commands.__name__}.{found.name}" for found in pkgutil.iter_modules(commands.__path__)]


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return what a call prints before it exits."""
    with pytest.raises(SystemExit) as exit_:
        commands.main(list(words))
    assert exit_.value.code == 0
    return capsys.readouterr().out


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "--version") == f"yolo-losses {yolo_losses.__version__}\n"


def test_an_unknown_command_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        commands.main(["lst"])
    assert exit_.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("yolo-losses: error: there is no command 'lst': there are bench, ")
    assert last.endswith(". Did you mean 'list'?")


def test_the_help_names_every_command_and_its_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "--help")
    for name in MODULES:
        assert re.search(rf"^ +{name.rpartition('.')[2].rstrip('_')}\s", text, flags=re.MULTILINE)
    assert "yolo train model=yolov8n.yaml data=my.yaml cls_loss=slide" in text


@pytest.mark.parametrize("name", MODULES)
def test_the_help_of_a_command_has_valid_examples(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = name.rpartition(".")[2].rstrip("_")
    _, _, examples = printed(capsys, command, "--help").partition("\nexamples:\n")
    lines = [re.split(r" {2,}| \| ", line.strip())[0] for line in examples.splitlines()]
    calls = [shlex.split(line)[1:] for line in lines if line.startswith("yolo-losses ")]
    assert calls
    monkeypatch.setattr(importlib.import_module(name), "run", lambda args: 0)
    for words in calls:
        assert words[0] == command
        assert commands.main(words) == 0
