"""`Batch`: fields by attribute and item, rows by index."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from antelope.replay import Batch
from antelope.replay.batch import describe


@pytest.fixture
def batch() -> Batch:
    return Batch(obs=torch.arange(8.0).view(4, 2), label=torch.tensor([3, 1, 4, 1]))


def test_fields_are_attributes_and_items(batch: Batch) -> None:
    assert batch.obs is batch["obs"]
    assert "label" in batch
    assert "reward" not in batch
    assert list(batch) == ["obs", "label"]


def test_fields_can_be_set_both_ways(batch: Batch) -> None:
    batch.reward = torch.zeros(4)
    batch["action"] = torch.ones(4)
    assert batch["reward"].sum() == 0
    assert batch.action.sum() == 4


def test_unpacks_like_a_dict(batch: Batch) -> None:
    assert set({**batch}) == {"obs", "label"}
    assert dict(batch)["label"] is batch.label


def test_missing_field_says_which_there_are(batch: Batch) -> None:
    with pytest.raises(AttributeError, match=r"no `reward`\. It has: obs, label\."):
        _ = batch.reward
    with pytest.raises(KeyError, match="It has: obs, label"):
        batch["reward"]


@given(data=st.data(), rows=st.integers(1, 6))
def test_indexing_selects_the_same_rows_of_every_field(data: st.DataObject, rows: int) -> None:
    obs = torch.arange(rows * 2).view(rows, 2)
    batch = Batch(obs=obs, nested={"a": obs[:, 0]}, label=obs[:, 1])
    picks = data.draw(st.lists(st.integers(0, rows - 1), max_size=8))
    chosen = batch[torch.tensor(picks, dtype=torch.int64)]
    assert chosen.obs.tolist() == [[2 * i, 2 * i + 1] for i in picks]
    assert chosen.nested["a"].tolist() == [2 * i for i in picks]
    assert chosen.label.tolist() == [2 * i + 1 for i in picks]


def test_slices_and_masks(batch: Batch) -> None:
    assert len(batch[1:3]) == 2
    assert batch[batch.label == 1].obs.tolist() == [[2, 3], [6, 7]]


def test_length_is_the_number_of_rows(batch: Batch) -> None:
    assert len(batch) == 4
    assert len(Batch(obs={"camera": {"left": torch.zeros(5, 3)}})) == 5
    assert len(Batch()) == 0


def test_map_and_to_reach_into_dicts() -> None:
    batch = Batch(obs={"a": torch.zeros(2)}, name="kept")
    doubled = batch.map(lambda tensor: tensor + 2)
    assert doubled.obs["a"].tolist() == [2, 2]
    assert doubled.name == "kept"
    assert batch.obs["a"].tolist() == [0, 0]
    assert batch.to("meta").obs["a"].device.type == "meta"


def test_can_be_copied(batch: Batch) -> None:
    other = copy.deepcopy(batch)
    other.obs.zero_()
    assert batch.obs.sum() == 28


def test_describe_gives_type_and_shape() -> None:
    batch = Batch(obs={"left": torch.zeros(2, 3)}, label=torch.zeros(2, dtype=torch.int64), note=1)
    assert describe(batch) == "obs.left float32 [2, 3], label int64 [2], note int"
