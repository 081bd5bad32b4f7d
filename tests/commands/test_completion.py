"""What a shell offers: commands, options, the keys of `yolo train`, and the values of a key."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from yolo_losses import commands, registry
from yolo_losses.commands.completion import SHELLS, values
from yolo_losses.config.settings import LossSettings, default_keys

DRIVERS = {
    # As bash calls a completion function, with `=` among the characters that break words.
    "bash": 'source "$1"; COMP_LINE="$2"; COMP_POINT=${#2}; read -ra COMP_WORDS <<< "$2"\n'
    '[[ "$2" == *" " ]] && COMP_WORDS+=(""); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n'
    '_yolo_losses "${COMP_WORDS[0]}"; printf "%s\\n" "${COMPREPLY[@]}"',
    "zsh": 'compdef() { }; source "$1"; words=(${(s: :)2}); [[ "$2" == *" " ]] && words+=("")\n'
    "CURRENT=${#words}; PREFIX=${words[CURRENT]}; compset() { PREFIX=${PREFIX##*[=,]} }\n"
    'compadd() { while [[ "$1" != -- ]]; do shift; done; shift\n'
    ' for word; do [[ "$word" == "$PREFIX"* ]] && print -r -- "$word"; done }\n_yolo_losses; true',
    "fish": 'source "$argv[1]"; complete -C "$argv[2]"',
}


def offered(shell: str, line: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The words that a shell offers at the end of a line, values without their key."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = folder / "script"
    assert commands.main(["completion", shell]) == 0
    script.write_text(capsys.readouterr().out)
    name = [] if shell == "fish" else [shell]
    done = subprocess.run(
        [shell, "-c", DRIVERS[shell], *name, script, line], capture_output=True, text=True, check=True, timeout=60
    )
    assert not done.stderr
    last = line.rpartition(" ")[2]
    found = {word.split("\t")[0] for word in done.stdout.split("\n") if word}
    given = last[: max(last.rfind("="), last.rfind(",")) + 1]
    return {word.removeprefix(given).removeprefix(given.partition("=")[2]) for word in found}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("yolo train cls_loss=sl", {"slide"}),
        ("yolo train box_loss=inner_s", {"inner_sdiou", "inner_shape_iou", "inner_siou"}),
        ("yolo train cls_los", {"cls_loss="}),
        ("yolo train focal_", {"focal_gamma=", "focal_alpha=", "focal_iou_gamma="}),
        ("yolo train loss_branches=o", {"one2many", "one2one"}),
        ("yolo train vfl_iou_weighted=", {"True", "False"}),
        ("yolo tr", {"train", "track"}),
        ("yolo-losses comp", {"compare", "completion"}),
        ("yolo-losses completion ", {"bash", "zsh", "fish"}),
        ("yolo-losses show ema", {"ema_slide", "ema_slide_delta=", "ema_slide_min_iou=", "ema_slide_decay="}),
        ("yolo-losses compare cls_loss=bce,sl", {"slide"}),
        ("yolo-losses list seg_l", {"seg_lovasz"}),
    ],
)
def test_a_shell_offers_what_fits(
    shell: str, line: str, wanted: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = offered(shell, line, tmp_path, capsys)
    if line.endswith(" "):
        assert wanted <= found
    else:
        assert found >= wanted
        assert all(word.startswith(line.rpartition(" ")[2].replace(",", "=").rpartition("=")[2]) for word in found)


def test_every_task_and_mode_of_the_installed_ultralytics_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    from ultralytics.cfg import MODES, TASKS

    assert commands.main(["completion", "bash"]) == 0
    (line,) = re.findall(r"^ +yolo\) echo \"(.*)\" ;;$", capsys.readouterr().out, flags=re.MULTILINE)
    assert {*TASKS, *MODES} <= set(line.split())


def test_every_value_that_is_offered_is_valid() -> None:
    for key, words in values().items():
        assert key in default_keys()
        for word in words:
            try:
                LossSettings.from_mapping({key: word})
            except ValueError as error:
                assert "would change nothing" in str(error) or "classify" in str(error), error


def test_every_loss_is_offered() -> None:
    found = values()
    for kind, key in (("cls", "cls_loss"), ("box", "box_loss"), ("seg", "seg_loss")):
        assert {spec.name for spec in registry.specs(kind)} <= set(found[key])  # type: ignore[arg-type]
