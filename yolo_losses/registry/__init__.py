"""Registry of losses: what is declared of each, look-up by name, plugins, and the errors for unknown names."""

from yolo_losses.registry.names import box_name, parse_keys, split_box_name
from yolo_losses.registry.specification import RESERVED, TERM_KEYS, Kind, LossSpec, normal
from yolo_losses.registry.suggestions import did_you_mean, example_base, unknown_box_loss, unknown_loss, unknown_name
from yolo_losses.registry.table import (
    add,
    add_problem,
    find,
    forget,
    listen,
    load,
    problems,
    remove,
    restore,
    set_loader,
    snapshot,
    specs,
)

__all__ = [
    "RESERVED",
    "TERM_KEYS",
    "Kind",
    "LossSpec",
    "add",
    "add_problem",
    "box_name",
    "did_you_mean",
    "example_base",
    "find",
    "forget",
    "listen",
    "load",
    "normal",
    "parse_keys",
    "problems",
    "remove",
    "restore",
    "set_loader",
    "snapshot",
    "specs",
    "split_box_name",
    "unknown_box_loss",
    "unknown_loss",
    "unknown_name",
]
