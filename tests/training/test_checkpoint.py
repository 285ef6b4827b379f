"""A checkpoint of somebody else's: whatever is wrong with it is one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from care_bridge.errors import InputError
from care_bridge.training.checkpoint import CHECKPOINT, State, load_checkpoint, save_checkpoint


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    state = State({"axes": "YXC"}, "abc", step=3, plateau={"best": float("inf"), "monitor": "val_loss"})
    save_checkpoint(tmp_path, state, weights=[np.arange(3.0)], optimizer=[np.float32(2)])
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found[0] == state
    assert [array.tolist() for group in found[1:] for array in group] == [[0, 1, 2], 2]


@pytest.mark.parametrize(
    "wrong",
    [
        {"step": "three"},
        {"step": None},
        {"step": -1},
        {"step": 2.5},
        {"sums": [1.0]},
        {"history": {"a": 1}},
        {"history": [3]},
        {"plateau": {"best": "low"}},
        {"best": [1]},
        {"settings": []},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_checkpoint_with_a_value_of_another_kind_is_damaged(tmp_path: Path, wrong: dict[str, Any]) -> None:
    (tmp_path / CHECKPOINT).parent.mkdir()
    state = vars(State({"axes": "YXC"}, "abc")) | wrong
    np.savez(tmp_path / CHECKPOINT, state=np.asarray(json.dumps(state)))
    with pytest.raises(InputError, match=r"checkpoint\.npz' is damaged") as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 20_000, "", "null", "\ufeff{}", "9" * 5000], ids=len)
def test_a_checkpoint_whose_state_is_none_is_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / CHECKPOINT).parent.mkdir()
    np.savez(tmp_path / CHECKPOINT, state=np.asarray(text))
    with pytest.raises(InputError, match=r"checkpoint\.npz' is damaged"):
        load_checkpoint(tmp_path)
