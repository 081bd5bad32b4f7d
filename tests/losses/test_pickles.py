"""Modules that were pickled by an earlier release load and compute the same."""

import pickle
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "golden" / "pickles.pkl"  # written by 0.1.0, whose losses lay in `yolo_losses.boxes`
PICKLES: dict[str, bytes] = pickle.loads(FILE.read_bytes())


@pytest.mark.parametrize("name", sorted(PICKLES))
def test_a_module_that_an_earlier_release_pickled_loads(name: str) -> None:
    module = pickle.loads(PICKLES[name])
    assert type(module).__module__.startswith("yolo_losses.losses.")
    again = pickle.loads(pickle.dumps(module))
    assert type(again) is type(module)
    assert repr(again) == repr(module)
