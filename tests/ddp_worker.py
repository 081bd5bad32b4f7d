"""One rank of `test_workers`: a few steps of an equipped criterion on its share of a made-up batch."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

STEPS = 3
CLASSES = 3
SIZE = 64
CASES = {"unequal": (4, 1, 2), "empty_rank": (3, 2, 0)}  # objects on each of three images, the third on rank 1
KEYS: dict[str, dict[str, Any]] = {
    "slide": {"cls_loss": "slide", "box_loss": "ciou"},
    "qfl": {"cls_loss": "qfl", "box_loss": "siou"},
    "ema_slide": {"cls_loss": "ema_slide"},
    "ghm": {"cls_loss": "ghm"},
    "ghm in pieces": {"cls_loss": "ghm"},  # on rank 1, whose images may be larger than those of rank 0
    "wiou": {"box_loss": "wiou"},
    "auto": {"cls_loss": "focal", "cls_scale": "auto"},
    "statistics": {"cls_loss": "focal", "loss_stats": True},
}

IMAGES = 12  # of the task classify: eight on rank 0, four on rank 1
CLASSIFY: dict[str, Any] = {"cls_loss": "focal", "cls_weights": "balanced", "loss_stats": True}


def criterion() -> Any:
    """Return a stock criterion of a head with two strides."""
    from ultralytics.utils.loss import v8DetectionLoss

    head = SimpleNamespace(stride=torch.tensor([8.0, 16.0]), nc=CLASSES, reg_max=16)
    args = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5, epochs=1, overlap_mask=True)
    model = torch.nn.Linear(1, 1)
    model.args, model.model, model.class_weights = args, [head], None  # type: ignore[assignment]
    return v8DetectionLoss(model)


def batch(case: str, step: int, rank: int | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return predictions and labels of a step: of three images, two on rank 0 and one on rank 1, or of one rank."""
    generator = torch.Generator().manual_seed(step)
    anchors = (SIZE // 8) ** 2 + (SIZE // 16) ** 2
    boxes = torch.randn(3, 64, anchors, generator=generator)
    scores = torch.randn(3, CLASSES, anchors, generator=generator) - 2
    feats = [torch.zeros(3, 1, SIZE // s, SIZE // s) for s in (8, 16)]
    counts = CASES[case]
    owner = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    centre = torch.rand(len(owner), 2, generator=generator) * 0.5 + 0.25
    size = torch.rand(len(owner), 2, generator=generator) * 0.3 + 0.15
    labels = {
        "batch_idx": owner.float(),
        "cls": torch.randint(CLASSES, (len(owner), 1), generator=generator).float(),
        "bboxes": torch.cat((centre, size), 1),
    }
    images = slice(0, 3) if rank is None else (slice(0, 2), slice(2, 3))[rank]
    mine = (owner >= images.start) & (owner < images.stop)
    labels = {key: value[mine] for key, value in labels.items()}
    labels["batch_idx"] = labels["batch_idx"] - images.start
    preds = {"boxes": boxes[images], "scores": scores[images], "feats": [f[images] for f in feats]}
    return preds, labels


def step(of: Any, given: tuple[dict[str, Any], dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the loss of a step and its gradient for the scores."""
    preds, labels = given
    scores = preds["scores"].clone().requires_grad_(True)
    loss = of({**preds, "scores": scores}, labels)[0].sum()
    loss.backward()
    assert scores.grad is not None
    return loss.detach(), scores.grad


def classify(rank: int | None = None) -> dict[str, Any]:
    """Return what a step of the task classify came to, on a rank's share of the images or on all of them."""
    from ultralytics.utils.loss import v8ClassificationLoss

    from yolo_losses.config.settings import LossSettings
    from yolo_losses.integration.criteria import equip
    from yolo_losses.integration.run import with_balanced_weights
    from yolo_losses.monitor import gather

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(IMAGES, CLASSES, generator=generator)
    labels = torch.tensor([0, 0, 1, 0, 2, 0, 1, 0, 0, 1, 2, 0])
    # Every rank has the whole training set, whose folders are counted.
    dataset = SimpleNamespace(samples=[("", int(label)) for label in labels])
    trainer = SimpleNamespace(train_loader=SimpleNamespace(dataset=dataset), data={"nc": CLASSES})
    settings = with_balanced_weights(trainer, LossSettings.from_mapping(CLASSIFY, "classify"))
    mine = v8ClassificationLoss()
    branches = equip(mine, settings)
    branches[""].join_training()
    images = slice(None) if rank is None else (slice(0, 8), slice(8, None))[rank]
    given = logits[images].clone().requires_grad_()
    loss = mine(given, {"cls": labels[images]})[0]
    loss.backward()
    columns = gather.read(branches)
    return {"loss": loss.detach(), "gradient": given.grad, "weights": settings.cls_weights, "columns": columns}


def state_of(branch: Any) -> dict[str, Tensor]:
    """Return the state of a branch's losses by term and name."""
    return {f"{term}.{key}": value for term, m in branch.modules.items() for key, value in m.state_dict().items()}


def main(folder: Path) -> None:
    """Write this rank's losses, gradients and states."""
    import torch.distributed as dist

    from yolo_losses.integration.criteria import equip
    from yolo_losses.losses.classification import _batch
    from yolo_losses.monitor import gather

    dist.init_process_group("gloo")
    rank = dist.get_rank()
    size = _batch.CHUNK
    result = {}
    for case, name in ((case, name) for case in CASES for name in KEYS):
        _batch.CHUNK = 64 if rank and "pieces" in name else size
        mine = criterion()
        branch = equip(mine, KEYS[name])[""]
        branch.join_training()
        for at in range(STEPS):
            loss, gradient = step(mine, batch(case, at, rank))
            branch.commit()
        with torch.no_grad():  # validation on one rank alone must not wait for the other
            if rank == 0:
                preds, labels = batch(case, 0, rank)
                mine(preds, labels)
        columns = gather.read({"": branch})  # of the first step
        result[case, name] = {"loss": loss, "gradient": gradient, "state": state_of(branch), "columns": columns}
    mine = criterion()
    branch = equip(mine, KEYS["ghm"])[""]
    branch.join_training()
    for at in range(STEPS):
        preds, labels = batch("unequal", at, rank)
        if rank and at == 1:
            preds["scores"][0, 0, 0] = torch.inf
        step(mine, (preds, labels))
        branch.commit()
    result["classify", "focal"] = classify(rank)
    result["overflow", "ghm"] = {"state": state_of(branch)}
    torch.save(result, folder / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
