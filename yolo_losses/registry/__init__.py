"""Registry of losses: what is declared of each, look-up by name, plugins, and the errors for unknown names."""

from yolo_losses.registry.names import box_name, parse_keys, split_box_name
from yolo_losses.registry.parameters import InvalidValueError, did_you_mean, format_value, normalize_name
from yolo_losses.registry.specification import (
    KINDS,
    RESERVED,
    TERM_KEYS,
    Kind,
    LossKind,
    LossSpec,
    key_prefix,
    page_name,
)
from yolo_losses.registry.suggestions import example_base, unknown_box_loss, unknown_loss, unknown_name
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
    "KINDS",
    "RESERVED",
    "TERM_KEYS",
    "InvalidValueError",
    "Kind",
    "LossKind",
    "LossSpec",
    "add",
    "add_problem",
    "box_name",
    "did_you_mean",
    "example_base",
    "find",
    "forget",
    "format_value",
    "key_prefix",
    "listen",
    "load",
    "normalize_name",
    "page_name",
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
