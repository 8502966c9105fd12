"""Mammoth's buffers: what they keep, what they give up, and what they draw."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from antelope import ConfigError
from antelope.launcher.mammoth import Buffer, GradientBuffer, RingBuffer
from antelope.launcher.record.state import load_object_state, object_state


def filled(buffer: Buffer, rows: int, **fields: Any) -> Buffer:
    numbers = torch.arange(rows)
    buffer.add_data(numbers[:, None].float(), labels=numbers, **fields)
    return buffer


# ----------------------------------------------------------------------------------- selection


@pytest.mark.parametrize("strategy", ["lars", "labrs"])
def test_rows_of_low_loss_are_given_up_first(strategy: str) -> None:
    torch.manual_seed(0)
    buffer = Buffer(20, sample_selection_strategy=strategy)
    scores = torch.where(torch.arange(20) < 10, -5.0, -0.1)  # Minus the loss.
    filled(buffer, 20, sample_selection_scores=scores)
    for number in range(200):
        row = torch.full((1, 1), 100.0 + number)
        score = torch.tensor([-5.0])
        buffer.add_data(row, labels=torch.tensor([100]), sample_selection_scores=score)
    held = buffer.examples.flatten()
    assert len(buffer) == 20
    assert int(((held >= 10) & (held < 20)).sum()) < int((held < 10).sum())


def test_scores_can_be_changed_by_the_places_of_rows() -> None:
    torch.manual_seed(0)
    buffer = filled(
        Buffer(4, sample_selection_strategy="lars"), 4, sample_selection_scores=-torch.ones(4)
    )
    places, _, labels = buffer.get_data(4, return_index=True)
    # Row 2 alone has a low loss from now on: whatever enters takes its place.
    buffer.sample_selection_fn.update(places, torch.where(labels == 2, -0.1, -3.0))
    while 2 in buffer.labels.tolist():
        buffer.add_data(
            torch.zeros(1, 1), torch.tensor([9]), sample_selection_scores=torch.tensor([-3.0])
        )
    assert sorted(buffer.labels.tolist()) == [0, 1, 3, 9]


def test_large_classes_give_up_rows_in_labrs() -> None:
    torch.manual_seed(0)
    buffer = Buffer(30, sample_selection_strategy="labrs")
    labels = torch.tensor([0] * 27 + [1] * 3)
    buffer.add_data(torch.zeros(30, 1), labels, sample_selection_scores=-torch.ones(30))
    buffer.add_data(
        torch.zeros(60, 1), torch.full((60,), 2), sample_selection_scores=-torch.ones(60)
    )
    counts = buffer.labels.bincount()
    assert counts[1] >= 2
    assert counts[0] < 22


def test_classes_stay_balanced_in_balancoir() -> None:
    torch.manual_seed(0)
    buffer = Buffer(30, sample_selection_strategy="balancoir")
    for label in range(3):
        buffer.add_data(torch.zeros(200, 1), torch.full((200,), label))
    counts = buffer.labels.bincount()
    assert counts.max() - counts.min() <= 2


def test_noisy_rows_of_the_current_task_and_easy_ones_of_the_past_are_given_up() -> None:
    class Sequence:
        def get_offsets(self) -> tuple[int, int]:
            return 2, 4

    torch.manual_seed(0)
    buffer = Buffer(40, sample_selection_strategy="abs", dataset=Sequence())
    labels = torch.arange(40) // 10  # Classes 0 and 1 belong to earlier tasks.
    loss = torch.tensor([1.0, 3.0]).repeat(20)
    buffer.add_data(loss[:, None], labels, sample_selection_scores=loss)
    for _ in range(15):
        buffer.add_data(
            torch.full((1, 1), 9.0), torch.tensor([3]), sample_selection_scores=torch.tensor([3.0])
        )
    rows, kept = buffer.examples.flatten(), buffer.labels
    past, here = rows[kept < 2], rows[(kept >= 2) & (rows < 9)]
    assert (int((past == 3).sum()), int((here == 1).sum())) == (10, 10)
    assert int((past == 1).sum()) < 10
    assert int((here == 3).sum()) < 10
    with pytest.raises(ConfigError, match="'abs' needs dataset="):
        Buffer(4, sample_selection_strategy="abs")


def test_an_unlimited_buffer_keeps_everything() -> None:
    buffer = Buffer(-1, sample_selection_strategy="unlimited")
    for rows in torch.arange(300).split(7):
        buffer.add_data(rows[:, None], rows)
    assert len(buffer) == 300
    assert buffer.labels.tolist() == list(range(300))
    assert not buffer.is_full()


def test_a_strategy_that_lacks_what_it_chooses_by_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"lars needs sample_selection_scores="):
        filled(Buffer(4, sample_selection_strategy="lars"), 2)
    with pytest.raises(ConfigError, match="balancoir needs labels="):
        Buffer(4, sample_selection_strategy="balancoir").add_data(torch.zeros(2, 1))
    with pytest.raises(ConfigError, match=r"'larz'.*Did you mean `lars`"):
        Buffer(4, sample_selection_strategy="larz")


@pytest.mark.parametrize("strategy", ["lars", "labrs", "balancoir"])
def test_a_resumed_buffer_goes_on_to_choose_the_same_rows(strategy: str) -> None:
    def more(buffer: Buffer, seed: int, n: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        scores = -torch.rand(n, generator=draw)
        labels = torch.randint(5, (n,), generator=draw)
        rows = torch.rand(n, 1, generator=draw)
        buffer.add_data(rows, labels, sample_selection_scores=scores)

    one, two = (Buffer(8, sample_selection_strategy=strategy) for _ in range(2))
    more(one, 1, 30)
    load_object_state(two, object_state(one))
    copied = copy.deepcopy(one)
    for buffer in (one, two, copied):
        more(buffer, 2, 60)
    assert torch.equal(one.examples, two.examples)
    assert torch.equal(one.examples, copied.examples)


# -------------------------------------------------------------------------------------- drawing


def test_rows_of_a_task_are_left_out_when_asked() -> None:
    buffer = filled(Buffer(10), 10, task_labels=torch.arange(10) % 2)
    places, _, labels, tasks = buffer.get_data(10, mask_task_out=1, return_index=True)
    assert sorted(labels.tolist()) == [0, 2, 4, 6, 8]
    assert set(tasks.tolist()) == {0}
    assert torch.equal(buffer.labels[places], labels)
    # Without task labels, by the labels and the number of classes per task.
    assert sorted(filled(Buffer(10), 10).get_data(9, mask_task_out=0, cpt=4)[1].tolist()) == [
        *range(4, 10)
    ]
    with pytest.raises(ConfigError, match="mask_task_out needs rows with task_labels"):
        filled(Buffer(10), 10).get_data(4, mask_task_out=0)


def test_rows_are_given_as_they_are_and_transformed() -> None:
    buffer = filled(Buffer(4), 4)
    plain, doubled, labels = buffer.get_data(
        4, transform=lambda row: 2 * row, return_not_aug=True, not_aug_transform=lambda row: -row
    )
    assert torch.equal(plain[:, 0], -labels.float())
    assert torch.equal(doubled[:, 0], 2.0 * labels)
    assert buffer.get_data(2, force_indexes=[3, 0])[1].tolist() == [3, 0]


def test_as_many_rows_of_each_class() -> None:
    buffer = Buffer(20)
    buffer.add_data(torch.zeros(20, 1), torch.tensor([0] * 12 + [1] * 6 + [2] * 2))
    assert sorted(buffer.get_balanced_data(9)[1].bincount().tolist()) == [2, 3, 4]
    assert len(buffer.get_balanced_data(4, n_classes=2)[1].unique()) == 2


def test_batches_of_a_buffer_by_a_loader() -> None:
    buffer = filled(Buffer(5), 5)
    loader = buffer.get_dataloader(None, batch_size=2, transform=lambda row: row + 1, shuffle=False)
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == [2, 2, 1]
    assert torch.cat([rows for rows, _ in batches]).flatten().tolist() == [1, 2, 3, 4, 5]
    assert [int(label) for _, label in buffer] == [0, 1, 2, 3, 4]


# --------------------------------------------------------------------------------------- fields


def test_fields_longer_than_the_examples_are_cut() -> None:
    buffer = Buffer(10)
    buffer.add_data(torch.zeros(3, 1), torch.arange(7), task_labels=torch.ones(10))
    assert buffer.labels.tolist() == [0, 1, 2]
    assert buffer.task_labels.tolist() == [1, 1, 1]
    buffer.add_data(torch.zeros(0, 1), torch.arange(7), task_labels=torch.ones(10))
    assert len(buffer) == 3


def test_true_labels_are_kept_beside_the_noisy_ones() -> None:
    buffer = filled(Buffer(3), 3, true_labels=torch.tensor([2, 1, 0]))
    assert buffer.used_attributes == ["examples", "labels", "true_labels"]
    assert [int(x) for x in buffer.get_all_data()[2]] == [2, 1, 0]


def test_a_field_can_be_given_other_values() -> None:
    buffer = filled(Buffer(5), 4)
    buffer.logits = torch.ones(4, 2)
    assert buffer.get_data(4)[2].tolist() == [[1, 1]] * 4
    with pytest.raises(ConfigError, match="3 labels for 4 stored rows"):
        buffer.labels = torch.zeros(3)


def test_a_buffer_can_be_made_smaller_or_larger() -> None:
    buffer = filled(Buffer(6), 6)
    buffer.buffer_size = 4
    assert (len(buffer), buffer.labels.tolist()) == (4, [0, 1, 2, 3])
    buffer.buffer_size = 8
    assert (len(buffer), buffer.is_full()) == (4, False)
    filled(buffer, 4)
    assert buffer.labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


# ---------------------------------------------------------------------------------------- others


def test_a_ring_keeps_the_newest_rows_of_each_task() -> None:
    buffer = RingBuffer(6, n_tasks=2)
    assert buffer.is_empty()
    filled(buffer, 5)
    assert sorted(buffer.labels.tolist()) == [2, 3, 4]
    buffer.task_number, buffer.num_seen_examples = 1, 0
    assert not buffer.is_empty()
    buffer.add_data(torch.zeros(2, 1), torch.tensor([10, 11]))
    assert sorted(buffer.get_data(9)[1].tolist()) == [2, 3, 4, 10, 11]
    other = RingBuffer(6, n_tasks=2)
    load_object_state(other, object_state(buffer))
    for each in (buffer, other):
        each.add_data(torch.zeros(2, 1), torch.tensor([12, 13]))
        assert sorted(each.labels.tolist()) == [2, 3, 4, 11, 12, 13]
    buffer.task_number = 2
    with pytest.raises(ConfigError, match="task_number=2, but it was built for 2 tasks"):
        filled(buffer, 1)
    with pytest.raises(ConfigError, match="buffer_size=3 leaves no row for each of 5 tasks"):
        RingBuffer(3, n_tasks=5)


class Directions(nn.Module):
    """A model whose gradient of rows is their mean."""

    def get_grads(self, examples: Tensor, labels: Tensor) -> Tensor:
        return examples.mean(0, keepdim=True)


def test_a_buffer_of_gradients_keeps_rows_that_point_elsewhere() -> None:
    torch.manual_seed(0)
    buffer = Buffer(10, None, 10, Directions())
    assert isinstance(buffer, GradientBuffer)
    east, west = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]])
    for _ in range(10):
        buffer.add_data(east, torch.tensor([0]))
    # The same direction again is declined, the opposite one is taken.
    buffer.add_data(east, torch.tensor([1]))
    assert buffer.labels.tolist() == [0] * 10
    buffer.add_data(west, torch.tensor([2]))
    assert 2 in buffer.labels.tolist()


def test_a_buffer_of_gradients_gives_each_row_once_before_any_comes_again() -> None:
    buffer = filled(Buffer(6, None, 3, Directions()), 6)
    buffer.reset_fathom()
    parts = [buffer.get_data(4)[1].tolist() for _ in range(4)]
    assert [len(part) for part in parts] == [4, 2, 4, 2]
    assert sorted(parts[0] + parts[1]) == sorted(parts[2] + parts[3]) == list(range(6))
    *_, labels, places = buffer.get_data(3, give_index=True, random=True)
    assert torch.equal(buffer.labels[places], labels)


def test_a_buffer_of_gradients_is_resumed_exactly() -> None:
    one, two = (Buffer(5, None, 3, Directions()) for _ in range(2))
    torch.manual_seed(1)
    rows = torch.randn(60, 3)
    one.add_data(rows[:20], torch.arange(20))
    one.reset_fathom()
    load_object_state(two, object_state(one))
    for buffer in (one, two):
        for part in rows[20:].split(4):
            buffer.drop_cache()
            buffer.add_data(part, torch.zeros(len(part)))
    assert torch.equal(one.examples, two.examples)
    assert torch.equal(one.get_data(3)[0], two.get_data(3)[0])


def test_buffers_leave_random_streams_alone() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    expected = torch.rand(2), np.random.rand(2)
    torch.manual_seed(1)
    np.random.seed(1)
    filled(Buffer(4, sample_selection_strategy="balancoir"), 9).get_data(3)
    filled(RingBuffer(4), 9).get_data(3)
    filled(Buffer(4, None, 2, Directions()), 4)
    assert torch.equal(torch.rand(2), expected[0])
    assert (np.random.rand(2) == expected[1]).all()
