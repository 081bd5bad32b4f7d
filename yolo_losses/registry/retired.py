"""Training keys of earlier versions that this version no longer has."""

from __future__ import annotations

RETIRED: dict[str, str] = {}  # what to do in place of each, as half a sentence: "ghm_bins does the same"


def hint(key: str) -> str:
    """Return what to do about a retired key, `""` for every other."""
    if key not in RETIRED:
        return ""
    return (
        f" An earlier version of yolo_losses had it: {RETIRED[key]}. A run that was trained with it is resumed with"
        " that version, or goes on as a new run from its last.pt without the key."
    )
