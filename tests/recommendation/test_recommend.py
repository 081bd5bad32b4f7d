"""The command and the function: their output, that `compare` accepts it, and unusual data sets."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
import ultralytics.utils  # its first import logs where the settings are
import yaml
from conftest import ROOT
from made_up_sets import LARGE, SMALL, Lines, story, write

import yolo_losses
from yolo_losses import commands
from yolo_losses.recommendation import network, recommend

FAST = {"model": "yolov8n.yaml", "imgsz": 192, "epochs": 2, "device": "cpu"}
WORDS = [f"{key}={value}" for key, value in FAST.items()]
SHARED = ROOT.parent / "shared" / "data"
# Of the set of `story`, whose objects are small and whose classes are rare, in this order.
CANDIDATES = ["box_loss=gcd", "cls_weights=balanced", "tal_overlap=nwd", "box_loss=nwd nwd_constant="]
POLYGON = "0.1 0.1 0.5 0.1 0.6 0.5 0.3 0.7 0.1 0.5"


def run(*words: str | Path) -> int:
    return commands.main(["recommend", *map(str, words)])


def without_times(text: str) -> list[str]:
    """Return the lines of a dry run except the estimate of its time, which is measured."""
    return [line for line in text.splitlines() if "about" not in line]


def test_it_is_public() -> None:
    assert yolo_losses.recommend is recommend


def test_small_and_rare_objects_are_reported_and_the_printed_command_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = story(tmp_path / "a set")
    assert run(f"data={path}", *WORDS) == 0
    text = capsys.readouterr().out
    assert "10 % are narrower than one stride (8 px)" in text
    assert "crack (1): less than a tenth of the labels of the largest class" in text
    assert re.search(r"^1\. Start with the stock losses", text, flags=re.MULTILINE)
    places = [text.index(f"{number}. {words}") for number, words in enumerate(CANDIDATES, 2)]
    assert sorted(places) == places
    assert "best" not in text
    assert max(len(line) for line in text.splitlines()[1:] if "yolo-losses compare" not in line) <= 110
    (line,) = (line for line in text.splitlines() if line.startswith("  yolo-losses compare "))
    monkeypatch.chdir(tmp_path)
    assert commands.main([*shlex.split(line)[1:], "--dry-run"]) == 0
    dry = capsys.readouterr().out
    assert dry.startswith("cls_loss=stock  (baseline)\n")
    assert "\ncls_loss=stock cls_weights=balanced\n" in dry
    assert "5 configurations, 3 seeds (0, 1, 2): 15 runs" in dry
    assert "5 configurations x 3 seeds = 15 trainings, about" in text


def test_the_written_file_is_the_grid_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, grid = story(tmp_path / "set"), tmp_path / "to" / "grid.yaml"
    assert run(f"data={path}", *WORDS, "--write", grid) == 0
    text = capsys.readouterr().out
    assert f"written: {grid}" in text.splitlines()
    monkeypatch.chdir(tmp_path)
    (line,) = (line for line in text.splitlines() if line.startswith("  yolo-losses compare "))
    assert commands.main([*shlex.split(line)[1:], "--dry-run"]) == 0
    by_words = without_times(capsys.readouterr().out)
    assert commands.main(["compare", f"cfg={grid}", "--dry-run"]) == 0
    assert without_times(capsys.readouterr().out) == by_words
    assert yaml.safe_load(grid.read_text())["epochs"] == 2


def test_stdout_is_json_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = story(tmp_path)
    assert run(f"data={path}", *WORDS, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["traits"]["rare"] == ["crack"]
    assert [candidate["choice"] for candidate in found["candidates"]] == [
        "box_loss",
        "cls_weights",
        "tal_overlap",
        "box_loss",
    ]
    assert found["candidates"][1]["keys"] == {"cls_weights": "balanced"}
    assert found["compare"]["runs"] == 15
    assert found["compare"]["seconds"] > 0


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_picture_is_drawn(ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / f"traits.{ending}"
    assert run(f"data={story(tmp_path / 'set')}", *WORDS, "--picture", picture) == 0
    assert picture.stat().st_size > 5000
    if ending == "svg":
        assert "crack" in picture.read_text()


def test_balanced_large_objects_get_stock_and_no_command(tmp_path: Path) -> None:
    path = write(tmp_path, lambda n: [f"0 {LARGE}", "1 0.7 0.7 0.2 0.3"])
    found = recommend(str(path), **FAST)
    assert (found.candidates, found.plan) == ([], None)
    assert "No trait of the labels suggests another loss" in str(found)
    assert "yolo-losses compare" not in str(found)
    with pytest.raises(ValueError, match="there is no grid to write"):
        found.write(tmp_path / "grid.yaml")


@pytest.mark.parametrize("model", ["yolov8n-obb.yaml", "yolov8n-seg.yaml", "yolov8n-pose.yaml", "rtdetr-l.yaml", None])
def test_candidates_can_be_trained_with_the_model(
    model: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every task, a data set with small objects and a rare class."""
    labels = {
        "yolov8n-obb.yaml": "0.5 0.5 0.52 0.5 0.52 0.55 0.5 0.55",
        "yolov8n-seg.yaml": "0.5 0.5 0.52 0.5 0.53 0.52 0.52 0.55 0.5 0.55",
        "yolov8n-pose.yaml": f"{SMALL} 0.5 0.5 2",
    }
    label = labels.get(str(model), SMALL)
    more = {"kpt_shape": [1, 3]} if model == "yolov8n-pose.yaml" else {}
    moved = [label.replace("0.5 ", f"{0.1 + n / 20:.2f} ", 1) for n in range(6)] if label.startswith(SMALL) else [label]
    lines: Lines = lambda n: [*(f"0 {one}" for one in moved), *([f"1 {label}"] if n == 0 else [])]  # noqa: E731
    path = write(tmp_path / "set", lines, images=12, **more)
    found = recommend(str(path), **{**FAST, "imgsz": 64, "model": model})
    assert found.candidates
    monkeypatch.chdir(tmp_path)
    assert found.plan is not None
    words = [word.replace(".pt", ".yaml") if word.startswith("model=") else word for word in found.plan.words]
    assert commands.main([*words[1:], "--dry-run"]) == 0
    capsys.readouterr()
    if model == "rtdetr-l.yaml":  # whose head refuses them, after the first batch of a dry run would have passed
        assert {candidate.choice for candidate in found.candidates} == {"box_loss"}


ODD: dict[str, tuple[Lines, dict[str, object], list[str], str]] = {
    "no label files": (lambda n: None, {}, [], r"none of its 4 training images has labels: looked in .*labels/train$"),
    "empty label files": (lambda n: [], {}, [], "none of its 4 training images has labels"),
    "only a test split": (lambda n: [f"0 {LARGE}"], {"splits": ["test"]}, [], r"key missing\. 'train' and 'val' are"),
    "rows of both kinds": (lambda n: [f"0 {LARGE}", f"0 {POLYGON}"], {}, [], "No valid images found.*0.png: "),
    "words for numbers": (lambda n: ["0 a b c d"], {}, [], "No valid images found.*could not convert string to float"),
    "a class beyond": (lambda n: [f"7 {LARGE}"], {}, [], "No valid images found.*exceeds dataset class count 2"),
    "boxes for segment": (
        lambda n: [f"0 {LARGE}"],
        {},
        ["task=segment"],
        "Segment dataset requires|needs labels that are polygons",
    ),
    "boxes for a segment model": (
        lambda n: [f"0 {LARGE}"],
        {},
        ["model=yolov8n-seg.yaml"],
        "Segment dataset requires|needs labels that are polygons",
    ),
    "no keypoints for pose": (lambda n: [f"0 {LARGE}"], {}, ["task=pose"], "'kpt_shape' in data.yaml missing"),
}


@pytest.mark.parametrize("case", ODD)
def test_an_invalid_data_set_is_rejected_in_one_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, more, words, message = ODD[case]
    path = write(tmp_path, lines, **more)  # type: ignore[arg-type]
    assert run(f"data={path}", "imgsz=64", *words) == 1
    out, err = capsys.readouterr()
    assert not out
    last = [line for line in err.splitlines() if line][-1]
    assert last.startswith(f"'data={path}': ")
    assert re.search(message, last)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "'data' is missing"),
        (["data"], "'data' is not KEY=VALUE"),
        (["data=nowhere.yaml"], "'data=nowhere.yaml': 'nowhere.yaml' does not exist"),
        (["data=.", "task=classify"], "there is no folder 'train'"),
        (["data=x.yaml", "task=segmant"], "'task=segmant' .* Did you mean 'segment'"),
        (["data=x.yaml", "model=yolov8.txt"], "'model=yolov8.txt'"),
        (
            ["data=x.yaml", "model=yolov8n-seg.yaml", "task=detect"],
            "'task=detect' does not match 'model=.*whose task is segment",
        ),
        (["data=x.yaml", "imgsz=12"], "'imgsz=12' is not valid: allowed is an integer >= 32"),
        (["data=x.yaml", "epoch=3"], "'epoch' is not a valid YOLO argument"),
        (["data=x.yaml", "cls_loss=focal"], "'cls_loss' chooses a loss"),
    ],
)
def test_errors_are_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 1
    out, err = capsys.readouterr()
    assert not out
    assert len(err.splitlines()) == 1
    assert re.search(message, err)


def test_boxes_without_a_height_are_counted_and_suggest_no_loss(tmp_path: Path) -> None:
    path = write(tmp_path / "some", lambda n: [f"0 {LARGE}", "1 0.7 0.7 0.48 0", "1 0.7 0.2 0.48 0"])
    found = recommend(str(path), **FAST)
    assert "boxes without a width or a height: 8" in str(found)
    assert "long side over short 1 in the median" in str(found)
    assert not found.candidates
    assert "flat" not in str(found)
    only = str(recommend(str(write(tmp_path / "only", lambda n: ["0 0.7 0.7 0.48 0"])), **FAST))
    assert "boxes without a width or a height: 4" in only
    assert "long side" not in only


@pytest.mark.parametrize(
    ("model", "finer"),
    [("yolov8s.pt", "yolov8s-p2.yaml"), ("yolo11n.pt", ""), ("yolov8n-seg.yaml", ""), ("yolov8n-p2.yaml", "")],
)
def test_a_network_with_a_finer_grid_is_named_where_the_family_has_one(model: str, finer: str, tmp_path: Path) -> None:
    lines: Lines = lambda n: [f"0 {POLYGON}", "0 0.50 0.50 0.51 0.50 0.51 0.52"]  # noqa: E731
    found = recommend(str(write(tmp_path, lines)), model=model, imgsz=200)
    assert found.traits.small == 0.5
    named = [re.findall(r"\S+-p2\.yaml", note.why) for note in found.checks if "finer" in note.what]
    assert named == ([[finer]] if finer else [])
    if finer:
        assert network.load(finer, "detect").stride == 4


def test_two_thousand_classes(tmp_path: Path) -> None:
    lines: Lines = lambda n: [f"{(n * 7 + k * k) % 300} 0.5 0.5 0.{k + 10} 0.2" for k in range(40)]  # noqa: E731
    path = write(tmp_path, lines, images=30, names=[f"class {n}" for n in range(2000)])
    text = str(recommend(str(path), **FAST))
    assert "2,000, 1,7" in text  # of which 1,7xx have no label
    assert re.search(r"classes without a training label: .* and 1,697 more", " ".join(text.split()))
    assert len(text.splitlines()) < 80


def test_a_single_class_gets_no_class_weights(tmp_path: Path) -> None:
    text = str(recommend(str(write(tmp_path, lambda n: [f"0 {LARGE}"], names=["only"])), **FAST))
    assert "1, only" in text
    assert "cls_weights" not in text


def test_polygons_are_segments_unless_detect_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, lambda n: [f"0 {POLYGON}"])
    assert recommend(str(path), imgsz=64).traits.task == "segment"
    assert recommend(str(path), imgsz=64, task="detect").traits.task == "detect"
    assert recommend(str(path), **FAST).traits.task == "detect"


def test_weights_are_not_fetched(tmp_path: Path) -> None:
    found = recommend(str(story(tmp_path)), **{**FAST, "model": "yolov8n.pt"})
    assert found.traits.stride == 8
    assert found.plan is not None
    assert "model=yolov8n.pt" in found.plan.words
    assert not Path("yolov8n.pt").exists()


def test_a_checkpoint_is_trained_at_its_own_size_if_no_other_is_passed(tmp_path: Path) -> None:
    """As by `yolo train`, which takes `imgsz` of the checkpoint."""
    checkpoint = tmp_path / "best.pt"
    torch.save({"model": ultralytics.YOLO("yolov8n.yaml").model, "train_args": {"imgsz": 96}}, checkpoint)
    path = str(story(tmp_path / "set"))
    for passed, size in (({}, 96), ({"imgsz": 64}, 64)):
        found = recommend(path, model=str(checkpoint), epochs=2, device="cpu", **passed)
        assert found.traits.imgsz == size
        assert found.plan is not None
        assert f"imgsz={size}" in found.plan.words


def test_classifiers_are_not_given_a_command_that_compare_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        for name, count in (("cat", 12), ("dog", 1)):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                (tmp_path / split / name / f"{number}.png").touch()
    assert run(f"data={tmp_path}") == 0
    text = capsys.readouterr().out
    assert "2. cls_weights=balanced" in text
    assert "yolo-losses compare" not in text
    assert "examples/classify.py" in text
    assert "imgsz" not in text  # no length of an image is measured, and `yolo train` has another default here
    assert run(f"data={tmp_path}", "--write", tmp_path / "grid.yaml") == 1
    assert "compare does not train classifiers" in capsys.readouterr().err


EXPECTED = {
    "bccd": ("detect", {"cls_weights"}),
    "neu_det": ("detect", set()),
    "neu_det_longtail": ("detect", {"cls_weights"}),
    "deep_pcb": ("detect", {"box_loss"}),
    "hituav_obb24": ("obb", {"cls_weights", "box_loss"}),
    "coco_cc_seg24": ("segment", {"cls_weights", "box_loss", "tal_overlap", "seg_loss"}),
    "coco_cc_pose16": ("pose", {"box_loss"}),
}


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not here")
@pytest.mark.parametrize("name", EXPECTED)
def test_recommendations_for_real_data_sets(name: str) -> None:
    found = recommend(str(SHARED / name / "data.yaml"), imgsz=320)
    task, choices = EXPECTED[name]
    assert found.traits.task == task
    assert found.traits.unreadable == 0
    assert {candidate.choice for candidate in found.candidates} == choices


def test_lengths_are_of_the_size_that_is_trained(tmp_path: Path) -> None:  # Ultralytics rounds up to multiples of 32
    found = recommend(str(story(tmp_path)), **{**FAST, "imgsz": 200})
    assert found.traits.imgsz == 224
    assert found.plan is not None
    assert "imgsz=200" in found.plan.words
    assert found.plan.seconds


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not here")
def test_the_page_shows_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SHARED)
    text = str(recommend("deep_pcb/data.yaml", model="yolov8n.pt", imgsz=320))
    shown = re.findall(r"```text\n(.*?)```", (ROOT / "docs" / "recommend.md").read_text(), flags=re.DOTALL)
    assert text.startswith(shown[0])
