"""Training keys of earlier versions that no longer exist."""

from __future__ import annotations

RETIRED: dict[str, str] = {}  # what to do in place of each, as half a sentence: "ghm_bins does the same"


def hint(key: str) -> str:
    """Return a hint for a retired key, `""` for any other key."""
    if key not in RETIRED:
        return ""
    return (
        f" An earlier version of yolo_losses had it: {RETIRED[key]}. Resume a run that was trained with it with that"
        " version, or start a new run from its last.pt without the key."
    )
