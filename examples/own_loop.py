"""Train with `DetectionLoss` in a PyTorch loop of one's own, without Ultralytics' trainer.

    python examples/own_loop.py

The model is Ultralytics', built from its YAML; dataset, optimizer and loop are plain PyTorch. About 10 seconds on one
core. Writes nothing.
"""

from __future__ import annotations

import torch
from make_dataset import CLASSES, make_image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel

from yolo_losses import DetectionLoss

IMGSZ = 96
LOSSES = {"cls_loss": "slide", "box_loss": "siou"}  # training keys, as for `yolo train`

Sample = tuple[Tensor, Tensor]  # image (3, H, W) in [0, 1]; objects (n, 5): class, then box as normalised xywh


class Shapes(Dataset[Sample]):
    """The images of `make_dataset.py`, made as they are asked for."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        image, lines = make_image(IMGSZ, [0, 0, index])
        objects = torch.tensor([[float(value) for value in line.split()] for line in lines])
        return torch.from_numpy(image).permute(2, 0, 1).float() / 255, objects


def collate(samples: list[Sample]) -> dict[str, Tensor]:
    """Return a batch as Ultralytics' criteria read it: the objects of all images, and which image each is in."""
    images, objects = zip(*samples, strict=True)
    every = torch.cat(objects)
    index = torch.repeat_interleave(torch.tensor([len(found) for found in objects]))
    return {"img": torch.stack(images), "batch_idx": index, "cls": every[:, :1], "bboxes": every[:, 1:]}


def main() -> None:
    """Train for a few epochs, and print the mean loss of each."""
    torch.manual_seed(0)
    model = DetectionModel("yolov8n.yaml", nc=len(CLASSES), verbose=False).train()
    model.args = get_cfg()  # the gains of the terms: box, cls, dfl
    criterion = DetectionLoss(model, settings=LOSSES)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loader = DataLoader(Shapes(32), batch_size=8, shuffle=True, collate_fn=collate)

    for epoch in range(10):
        total = 0.0
        for batch in loader:
            terms, _ = criterion(model(batch["img"]), batch)  # box, class, distribution, each times the batch size
            loss = terms.sum()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
            total += loss.item() / len(batch["img"])
        print(f"epoch {epoch + 1}: loss {total / len(loader):.2f}")

    (branch,) = criterion.branches.values()  # an end-to-end head (v10, 26) has two
    print(f"criterion: {type(criterion).__name__}, class term {branch.cls}, box term {branch.box}")
    print(
        f"called in {branch.ledger.batches} batches;"
        f" in the first, the class term was {branch.ratios['value']:.2f} times BCE's"
    )


if __name__ == "__main__":
    main()
