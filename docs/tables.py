"""Write what follows from the declarations of the losses: names, signatures, a config and a page for each loss.

    python docs/tables.py           # write them (`make tables`)
    python docs/tables.py --check   # compare, exit code 1 where a file is not current

In the READMEs the text between `<!-- losses -->` and `<!-- /losses -->` is written. In `configs/` the file of each loss
is written whole; of a combination, such as `slide_inner_siou.yaml`, the comment at the top is kept. `signatures.py` has
what is written in `yolo_losses/`, `pages.py` what is written in `docs/` and in the site's navigation.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import yaml
from by_hand import missing
from loss_page import MODELS
from pages import pages
from signatures import signatures

from yolo_losses import registry
from yolo_losses.commands.list_ import grouped
from yolo_losses.config.settings import LossSettings
from yolo_losses.registry import TERM_KEYS, LossSpec

ROOT = Path(__file__).resolve().parents[1]
NOTES = {
    "class": "Compare runs by mAP: the values of cls_loss of different losses are not comparable.",
    "rotated": "For the task obb only.",
    "mask": "For the task segment only.",
    "classify": "For the task classify only.",
    "pixel": "For the task semantic only.",
    "region": "For the task semantic only.",
    "l1": "For heads that predict no distribution: YOLO26 and RT-DETR.",
    "angle": "For the task obb only.",
    "auxiliary": "For the task segment of YOLO26 only.",
    "keypoint": "For the task pose only.",
    "visibility": "For the task pose only.",
}
README_WORDS = {
    "en": {
        "head": "| key | values |",
        "cls_loss": "{class}; in the task `classify`: {classify}",
        "box_loss": "{box}; rotated: {rotated}; with the prefixes {modifiers}",
    },
    "zh": {
        "head": "| 配置项 | 取值 |",
        "cls_loss": "{class}；`classify` 任务：{classify}",  # noqa: RUF001
        "box_loss": "{box}；旋转框：{rotated}；可加前缀 {modifiers}",  # noqa: RUF001
    },
}


def readme(text: str, language: str = "en") -> str:
    """Return the README with the current names of the losses."""
    words = README_WORDS[language]
    names = {
        name: ", ".join(f"`{spec.name}_`" if spec.kind == "modifier" else f"`{spec.name}`" for spec in specs)
        for name, specs in grouped([spec for spec in registry.specs() if spec.built_in]).items()
    }
    boxes = words["box_loss"].format(**names)
    values = {"cls_loss": words["cls_loss"].format(**names), "box_loss": boxes, "dfl_loss": "`dfl`, `off`"}
    values |= {"l1_loss": f"{names['l1']}, `off`", "angle_loss": f"{names['angle']}, `off`", "seg_loss": names["mask"]}
    values |= {
        "sem_loss": f"{names['auxiliary']}, `off`",
        "pose_loss": names["keypoint"],
        "kobj_loss": names["visibility"],
    }
    values |= {"ce_loss": names["pixel"], "dice_loss": f"{names['region']}, `off`"}
    rows = [words["head"], "|---|---|", *(f"| `{key}` | {value} |" for key, value in values.items())]
    return re.sub(r"(?<=<!-- losses -->\n).*?(?=<!-- /losses -->)", "\n".join(rows) + "\n", text, flags=re.DOTALL)


def settings_of(chosen: Mapping[str, str], task: str = "") -> str:
    """Return the lines of a config that chooses losses: their keys, and every parameter with its default."""
    declared = {p.key: p for spec in registry.specs() for p in spec.parameters}
    lines = ["mode: train", *(f"{key}: {name}" for key, name in chosen.items())]
    for key, value in LossSettings.from_mapping(chosen, task).parameters.items():
        limits = declared[key].limits
        lines.append(f"{key}: {value} # {declared[key].allowed}" + (f": {limits.help}" if limits.help else ""))
    return "\n".join(lines) + "\n"


def comment_of(name: str, spec: LossSpec) -> str:
    """Return the comment at the top of a loss's config."""
    sentences = [f"{spec.summary}. Source: {spec.source}."]
    if getattr(spec.module, "default_target", "tal") == "iou":
        sentences.append("Positives are trained toward the IoU of their predicted boxes (cls_target=auto).")
    sentences.append(NOTES.get(spec.group, ""))
    words = textwrap.fill(" ".join(sentences), 118, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
    model = MODELS.get(spec.group, "yolov8n.yaml")
    return f"{words}\n#\n#     yolo train cfg=$(yolo-losses config {name}) model={model} data=my.yaml\n"


def configs() -> dict[Path, str]:
    """Return the text of every config by its path."""
    found: dict[Path, str] = {}
    for spec in registry.specs():
        if spec.built_in and spec.kind != "modifier":
            name = registry.page_name(spec.kind, spec.name)
            text = comment_of(name, spec) + settings_of(
                {TERM_KEYS[spec.kind]: spec.name}, "classify" if spec.kind == "classify" else ""
            )
            found[ROOT / "configs" / f"{name}.yaml"] = text
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        if path not in found:
            text = path.read_text(encoding="utf-8")
            keys = yaml.safe_load(text)
            comment = re.match(r"(#.*\n)*", text)
            chosen = {key: keys[key] for key in TERM_KEYS.values() if key in keys}
            found[path] = (comment[0] if comment else "") + settings_of(chosen)
    return found


def main() -> int:
    """Write the files, or with `--check` name those that are not current."""
    parser = argparse.ArgumentParser(description="Write README's names, configs and pages from the declarations.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a file is not current")
    args = parser.parse_args()
    readmes = {
        path: readme(path.read_text(encoding="utf-8"), "zh" if ".zh" in path.name else "en")
        for path in sorted(ROOT.glob("README*.md"))
    }
    wanted = {**readmes, **configs(), **signatures(), **pages()}
    stale = [p for p, text in wanted.items() if not p.is_file() or p.read_text(encoding="utf-8") != text]
    for p in stale:
        if args.check:
            print(f"{p.relative_to(ROOT)} does not follow from the declarations: run `make tables`")
        else:
            p.write_text(wanted[p], encoding="utf-8")
            print(f"wrote {p.relative_to(ROOT)}")
    for line in () if args.check else missing():
        print(f"to be written by hand: {line}")
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
