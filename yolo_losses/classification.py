"""The import path of these losses before `yolo_losses.losses`, which pickled modules name."""

from yolo_losses.losses import alias, classification

alias(__name__, classification)
