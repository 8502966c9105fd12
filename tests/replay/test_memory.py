"""`Memory` keeps what its policy says, whole rows, and continues exactly."""

from __future__ import annotations

import collections
import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from antelope import CheckpointError, ConfigError, Memory, ml
from antelope.launcher.record.checkpoint import read, write
from antelope.replay import Batch
from antelope.replay.memory import POLICIES
from antelope.replay.padding import mask_of, steps_of

SHORT = {"obs": torch.zeros(4, 3), "label": torch.arange(4)}
GRADUAL = ("reservoir", "balanced", "ring")  # Those that take rows one by one.


def rows(index: Any, label: Any) -> Batch:
    """Rows whose every field tells their number."""
    index = torch.as_tensor(index, dtype=torch.int64).reshape(-1)
    return Batch(
        obs={"image": index.float().view(-1, 1, 1).expand(-1, 2, 3) / 8, "odd": index % 2 == 1},
        label=torch.as_tensor(label, dtype=torch.int64).reshape(-1),
        index=index,
    )


def add(memory: Memory, index: Any, label: Any) -> None:
    batch = rows(index, label)
    extras = {"features": F.one_hot(batch.label, 50).float()}
    if memory.policy != "herding":
        extras = {}
    memory.add(batch, logits=batch.index.double().unsqueeze(1) + 0.5, **extras)


def numbers(batch: Batch, labels: list[int]) -> list[int]:
    """The numbers of rows, none of which may be put together from several."""
    assert list(batch) == ["obs", "label", "index", "logits"]
    expected = rows(batch.index, torch.tensor(labels)[batch.index])
    for name in ("image", "odd"):
        assert torch.equal(batch.obs[name], expected.obs[name])
        assert batch.obs[name].dtype == expected.obs[name].dtype
    assert torch.equal(batch.label, expected.label)
    assert torch.equal(batch.logits, batch.index.double().unsqueeze(1) + 0.5)
    return batch.index.tolist()


def held(memory: Memory, labels: list[int]) -> list[int]:
    return numbers(memory.all(), labels) if len(memory) else []


def offer(memory: Memory, labels: list[int], sizes: Any, start: int = 0) -> None:
    """A stream of rows, in batches of these sizes, the last one over and over."""
    sizes = list(sizes)
    while start < len(labels):
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        index = range(start, min(start + size, len(labels)))
        add(memory, list(index), labels[start : start + size])
        start += size


streams = st.lists(st.integers(0, 4), min_size=1, max_size=60)
cuts = st.lists(st.integers(1, 20), min_size=1, max_size=8)
capacities = st.integers(5, 25)
seeds = st.integers(0, 10**6)


# ------------------------------------------------------------------------- against plain Python


def may_follow(policy: str, capacity: int, before: list[int], row: int, labels: list[int]) -> Any:
    """Whether a memory that held `before` may hold something after it was offered `row`."""
    label = labels[row]
    counts = collections.Counter(labels[i] for i in before)
    if policy == "ring":
        newest: dict[int, list[int]] = collections.defaultdict(list)
        for i, seen in enumerate(labels[: row + 1]):
            newest[seen].append(i)
        share = capacity // len(newest)
        kept = sorted(i for found in newest.values() for i in found[-share:])
        return lambda after: sorted(after) == kept
    if len(before) < capacity:
        return lambda after: after == [*before, row]
    most = max(counts.values())
    enters = counts[label] < most

    def one_replaced(after: list[int]) -> bool:
        (gone,) = set(before) - set(after)
        in_place = [row if i == gone else i for i in before]
        return after == in_place and (policy == "reservoir" or counts[labels[gone]] == most)

    if policy == "balanced":
        return lambda after: one_replaced(after) if enters else after == before
    return lambda after: after == before or one_replaced(after)


@pytest.mark.parametrize("policy", GRADUAL)
@given(labels=streams, capacity=capacities, seed=seeds)
def test_each_row_is_kept_as_the_policy_says(
    policy: str, labels: list[int], capacity: int, seed: int
) -> None:
    memory = Memory(capacity, policy, seed=seed)
    for row, label in enumerate(labels):
        before = held(memory, labels)
        add(memory, [row], [label])
        assert may_follow(policy, capacity, before, row, labels)(held(memory, labels))
        assert memory.seen == row + 1


@pytest.mark.parametrize("policy", GRADUAL)
@given(labels=streams, capacity=capacities, sizes=cuts, seed=seeds)
def test_how_a_stream_is_cut_into_batches_makes_no_difference(
    policy: str, labels: list[int], capacity: int, sizes: list[int], seed: int
) -> None:
    one_by_one, in_batches = (Memory(capacity, policy, seed=seed) for _ in range(2))
    offer(one_by_one, labels, [1])
    offer(in_batches, labels, sizes)
    assert sorted(held(in_batches, labels)) == sorted(held(one_by_one, labels))
    assert in_batches.seen == one_by_one.seen == len(labels)
    if policy != "ring":  # And they lie in the same places.
        assert held(in_batches, labels) == held(one_by_one, labels)


@pytest.mark.parametrize("policy", POLICIES)
@given(
    labels=streams, capacity=capacities, n=st.integers(1, 40), seed=seeds, size=st.integers(1, 9)
)
def test_a_sample_is_of_different_whole_rows_that_are_held(
    policy: str, labels: list[int], capacity: int, n: int, seed: int, size: int
) -> None:
    labels = sorted(labels) if policy == "herding" else labels
    memory = Memory(capacity, policy, seed=seed)
    for chunk in np.array_split(np.arange(len(labels)), size):
        new = [i for i in chunk.tolist() if policy != "herding" or labels[i] not in memory._classes]
        if policy == "herding":  # A class comes whole.
            new = [i for i, label in enumerate(labels) if label in {labels[j] for j in new}]
        add(memory, new, [labels[i] for i in new])
    here = held(memory, labels)
    assert len(here) == len(memory) == len(set(here)) <= capacity
    drawn = numbers(memory.sample(n), labels)
    assert len(drawn) == len(set(drawn)) == min(n, len(memory))
    assert set(drawn) <= set(here)


@pytest.mark.parametrize("policy", ["reservoir", "balanced"])
@given(labels=streams, sizes=cuts, room=st.integers(0, 3))
def test_a_memory_as_large_as_the_stream_holds_every_row(
    policy: str, labels: list[int], sizes: list[int], room: int
) -> None:
    memory = Memory(len(labels) + room, policy, seed=0)
    offer(memory, labels, sizes)
    assert held(memory, labels) == list(range(len(labels)))


# --------------------------------------------------------------------------------------- chance


def p_value(counts: Any, expected: float, variance: float) -> float:
    """Of counts of n outcomes that have the same chance and the same sum in every trial.

    Their covariance is -variance / (n - 1), so that this sum is chi-square with n - 1 degrees.
    """
    counts = torch.tensor(counts, dtype=torch.float64)
    degrees = len(counts) - 1
    statistic = (counts - expected).square().sum() / variance * degrees / len(counts)
    return float(torch.special.gammaincc(torch.tensor(degrees / 2.0), statistic.float() / 2))


def reservoir_p_value(make: Callable[[int], Memory], sizes: list[int]) -> float:
    """Of the hypothesis that every one of 16 positions is kept with probability 3 / 16."""
    n, k, trials = 16, 3, 1500
    counts = np.zeros(n)
    for seed in range(trials):
        memory, row, pending = make(seed), 0, list(sizes)
        while row < n:
            size = min(pending[0] if len(pending) == 1 else pending.pop(0), n - row)
            memory.add({"index": torch.arange(row, row + size)})
            row += size
        assert len(memory) == k
        counts[memory.all().index] += 1
    share = k / n
    return p_value(counts, trials * share, trials * share * (1 - share))


@pytest.mark.parametrize("sizes", [[1], [5], [2, 10, 1], [16]])
def test_every_position_is_kept_with_the_same_probability(sizes: list[int]) -> None:
    assert reservoir_p_value(lambda seed: Memory(3, seed=seed), sizes) > 0.01


class CountsFromOneLess(Memory):
    def _reservoir(self, rows: int) -> dict[int, int]:
        self.seen -= 1
        place = super()._reservoir(rows)
        self.seen += 1
        return place


class CountsFromOneMore(Memory):
    def _reservoir(self, rows: int) -> dict[int, int]:
        self.seen += 1
        place = super()._reservoir(rows)
        self.seen -= 1
        return place


class CountsBatches(Memory):
    """All rows of a batch as if they were its first."""

    def _reservoir(self, rows: int) -> dict[int, int]:
        place: dict[int, int] = {}
        for row in range(rows):
            place |= dict.fromkeys(super()._reservoir(1), row)
        return place


class LosesCount(Memory):
    """As one that is resumed without it."""

    def add(self, batch: Any, **extras: Any) -> None:
        if self.seen == 10:
            self.seen = len(self)
        super().add(batch, **extras)


@pytest.mark.parametrize(
    ("broken", "sizes"),
    [
        (CountsFromOneLess, [5]),
        (CountsFromOneMore, [1]),
        (CountsBatches, [8]),
        (LosesCount, [5]),
    ],
)
def test_the_test_of_positions_notices(broken: type[Memory], sizes: list[int]) -> None:
    assert reservoir_p_value(lambda seed: broken(3, seed=seed), sizes) < 1e-6


@pytest.mark.parametrize(("size", "n"), [(12, 1), (12, 5), (300, 7)])
def test_every_row_is_drawn_with_the_same_probability_and_at_every_place(size: int, n: int) -> None:
    memory, trials = Memory(size, seed=1), 6000
    memory.add({"index": torch.arange(size)})
    drawn = torch.stack([memory.sample(n).index for _ in range(trials)])
    share = n / size
    counts = drawn.flatten().bincount(minlength=size)
    # All rows of a sample are different: the sum of squares is that of draws without replacement.
    assert p_value(counts.tolist(), trials * share, trials * share * (1 - share)) > 0.01
    for place in range(n):
        counts = drawn[:, place].bincount(minlength=size)
        assert p_value(counts.tolist(), trials / size, trials / size * (1 - 1 / size)) > 0.001


def test_a_balanced_memory_gives_up_any_row_of_any_largest_class() -> None:
    counts, trials = np.zeros(9), 3000
    for seed in range(trials):
        memory = Memory(9, "balanced", seed=seed)
        # The classes have 4, 1 and 4 rows.
        labels = [0, 0, 0, 0, 1, 2, 2, 2, 2]
        memory.add({"label": torch.tensor(labels), "index": torch.arange(9)})
        memory.add({"label": torch.tensor([1]), "index": torch.tensor([9])})
        (gone,) = set(range(9)) - set(memory.all().index.tolist())
        counts[gone] += 1
    assert counts[4] == 0
    assert p_value(np.delete(counts, 4), trials / 8, trials / 8 * 7 / 8) > 0.01


# ------------------------------------------------------------------------------------- policies


@pytest.mark.parametrize("order", ["sorted", "mixed"])
def test_a_balanced_memory_ends_with_as_many_rows_of_every_class(order: str) -> None:
    labels = [label for label in range(7) for _ in range(60)]
    if order == "mixed":
        np.random.default_rng(0).shuffle(labels)
    memory = Memory(100, "balanced", seed=0)
    for end in range(60, 421, 60):
        offer(memory, labels[:end], [10], end - 60)
        counts = collections.Counter(labels[i] for i in held(memory, labels))
        if end > 100:
            assert len(memory) == 100
        if order == "sorted" and end > 100:
            assert max(counts.values()) - min(counts.values()) <= 1
    assert sorted(counts.values()) == [14] * 5 + [15] * 2


def test_a_rare_class_keeps_all_its_rows_in_a_balanced_memory() -> None:
    labels = [0] * 40 + [1, 2, 1] + [0] * 40
    memory = Memory(10, "balanced", seed=0)
    offer(memory, labels, [8])
    assert {40, 41, 42} < set(held(memory, labels))
    assert len(memory) == 10


def test_a_ring_by_hand() -> None:
    labels = [0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 1, 2, 0]
    memory = Memory(5, "ring")
    after = {}
    for row, label in enumerate(labels):
        add(memory, [row], [label])
        after[row] = sorted(held(memory, labels))
    assert after[4] == [0, 1, 2, 3, 4]
    assert after[5] == [1, 2, 3, 4, 5]  # The oldest goes.
    assert after[6] == [4, 5, 6]  # Two classes: two rows each, the fifth place is empty.
    assert after[7] == [5, 6, 7]
    assert after[8] == [5, 6, 7, 8]
    assert after[10] == [5, 7, 9, 10]
    assert after[11] == [7, 10, 11]  # Three: one each.
    assert after[12] == [10, 11, 12]


def check_herded(features: np.ndarray, chosen: list[int], n: int) -> None:
    """Algorithm 4 of iCaRL as it is written; of two rows that are as good either may be chosen."""
    assert len(set(chosen)) == len(chosen) == min(n, len(features))
    phi = features / np.linalg.norm(features, axis=1, keepdims=True)
    mu = phi.mean(0)
    for k, best in enumerate(chosen, 1):
        distance = np.linalg.norm(mu - (phi + phi[chosen[: k - 1]].sum(0)) / k, axis=1)
        distance[chosen[: k - 1]] = np.inf
        assert distance[best] <= distance.min() + 1e-5


@given(
    capacity=st.integers(4, 30),
    count=st.lists(st.integers(1, 25), min_size=4, max_size=4),
    seed=seeds,
)
def test_herding_chooses_as_the_paper_says_and_gives_up_the_last_chosen(
    capacity: int, count: list[int], seed: int
) -> None:
    random = np.random.default_rng(seed)
    features = random.normal(size=(sum(count), 5)) * random.uniform(0.1, 9, (sum(count), 1))
    labels = np.repeat(np.arange(4), count)
    memory = Memory(capacity, "herding")
    for task in ((0, 1), (2,), (3,)):
        index = random.permutation(np.flatnonzero(np.isin(labels, task)))
        batch = rows(index, labels[index])
        features_of = torch.from_numpy(features[index]).requires_grad_()
        memory.add(batch, logits=batch.index.double().unsqueeze(1) + 0.5, features=features_of)
        seen = range(max(task) + 1)
        share = capacity // len(seen)
        found = held(memory, labels.tolist())
        for label in seen:
            of_class = np.flatnonzero(labels == label)
            # In order: a later class makes those give way that were chosen last.
            chosen = [of_class.tolist().index(i) for i in found if labels[i] == label]
            check_herded(features[of_class], chosen, share)
    assert memory.seen == sum(count)


def test_herding_copes_with_rows_without_features_and_with_equal_rows() -> None:
    memory = Memory(6, "herding")
    label = torch.zeros(5, dtype=torch.int64)
    # The mean is nil, and so is the third row: it is nearest. The next is as far as its opposite.
    features = torch.tensor([[1.0, 0], [-1, 0], [0, 0], [1, 0], [-1, 0]])
    memory.add({"label": label, "index": torch.arange(5)}, features=features)
    order = memory.all().index.tolist()
    assert order[0] == 2
    assert features[order[1]].tolist() == (-features[order[2]]).tolist()
    assert sorted(order) == [0, 1, 2, 3, 4]


def test_herding_is_as_exact_under_autocast() -> None:
    torch.manual_seed(0)
    batch = {"label": torch.zeros(200, dtype=torch.int64), "index": torch.arange(200)}
    features = torch.randn(200, 16) * 0.01 + 1
    plain, mixed = Memory(50, "herding"), Memory(50, "herding")
    plain.add(batch, features=features)
    with torch.autocast("cpu", torch.bfloat16):
        mixed.add(batch, features=features)
    assert torch.equal(plain.all().index, mixed.all().index)


# -------------------------------------------------------------------------------------- columns


def test_rows_are_copies_without_a_graph_of_fixed_size() -> None:
    memory = Memory(4, seed=0)
    obs, logits = torch.zeros(2, 3), torch.ones(2, 5, requires_grad=True)
    memory.add(Batch(obs=obs), logits=logits * 2)
    memory.add(Batch(obs=obs), logits=logits * 2)
    obs.fill_(9)
    batch, everything = memory.sample(3), memory.all()
    assert not batch.logits.requires_grad
    assert batch.obs.sum() == 0
    for given_away in (batch, everything):
        given_away.obs.fill_(7)
        given_away.logits.fill_(7)
    assert memory.all().obs.sum() == 0
    assert memory.all().logits.unique().tolist() == [2]
    assert memory.nbytes == 4 * (3 + 5) * 4
    where = [column.data_ptr() for column in memory._columns.values()]
    for _ in range(50):
        memory.add(Batch(obs=torch.zeros(2, 3)), logits=logits)
    assert [column.data_ptr() for column in memory._columns.values()] == where
    assert all(column.is_contiguous() for column in memory._columns.values())


def test_rows_from_inference_mode_can_be_replaced_and_learnt_from_outside_of_it() -> None:
    memory = Memory(2, seed=0)
    with torch.inference_mode():
        memory.add(Batch(obs=torch.ones(2, 3)))
    for _ in range(20):
        memory.add(Batch(obs=torch.ones(2, 3)))
    weight = torch.ones(3, requires_grad=True)
    (memory.sample(2).obs @ weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [2, 2, 2]


def test_strided_fields_of_every_kind_come_back_as_they_were() -> None:
    fields = {
        "half": torch.randn(4, 6).bfloat16()[:, ::2],
        "image": torch.randint(256, (4, 3, 2, 2), dtype=torch.uint8).to(
            memory_format=torch.channels_last
        ),
        "mask": torch.tensor([True, False, True, True]),
    }
    memory = Memory(9)
    memory.add(fields)
    for name, field in fields.items():
        assert torch.equal(memory.all()[name], field)
        assert memory.all()[name].dtype == field.dtype


def test_counts_what_it_holds() -> None:
    memory = Memory(10)
    assert (len(memory), memory.seen, memory.nbytes) == (0, 0, 0)
    memory.add({"obs": torch.zeros(4, 2), "label": torch.zeros(4, dtype=torch.int64)})
    assert (len(memory), memory.seen, memory.nbytes) == (4, 4, 4 * (8 + 8))
    memory.add({"obs": torch.zeros(0, 2), "label": torch.zeros(0, dtype=torch.int64)})
    memory.add({"label": torch.zeros(9, dtype=torch.int64), "obs": torch.zeros(9, 2)})
    assert (len(memory), memory.seen, memory.nbytes) == (10, 13, 10 * (8 + 8))


@pytest.mark.parametrize("policy", POLICIES)
def test_an_empty_batch_changes_nothing(policy: str) -> None:
    memory = Memory(4, policy)
    memory.add({name: field[:0] for name, field in SHORT.items()})
    assert (len(memory), memory.seen) == (0, 0)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_cleared_memory_begins_anew_with_any_fields(policy: str) -> None:
    memory = Memory(3, policy)
    add(memory, [0, 1, 2, 3], [0, 1, 0, 1])
    memory.clear()
    assert (len(memory), memory.seen, memory.nbytes) == (0, 0, 0)
    features = {"features": torch.ones(3, 1)} if policy == "herding" else {}
    memory.add({"label": torch.tensor([1, 0, 5])}, **features)
    assert sorted(memory.all().label.tolist()) == [0, 1, 5]


def test_rows_follow_the_batches_to_another_device() -> None:
    memory = Memory(6, seed=0)  # As after a run is resumed where there is a GPU.
    memory.add(SHORT)
    memory.add({name: field.to("meta") for name, field in SHORT.items()})
    assert {field.device.type for field in vars(memory.sample(2)).values()} == {"meta"}
    assert memory.all().obs.shape == (6, 3)
    other = Memory(6)
    other.load_state_dict(memory.state_dict())
    assert other.all().obs.device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("policy", POLICIES)
def test_a_gpu_keeps_the_same_rows_as_the_cpu(policy: str) -> None:
    labels = sorted([i % 5 for i in range(300)])
    here, there = Memory(20, policy, seed=0), Memory(20, policy, seed=0)
    for start in range(0, 300, 60):
        batch = rows(range(start, start + 60), labels[start : start + 60])
        features = {"features": batch.obs["image"].flatten(1) + 1} if policy == "herding" else {}
        here.add(batch, **features)
        there.add(batch.to("cuda"), **{k: v.to("cuda") for k, v in features.items()})
    other = Memory(20, policy)
    other.load_state_dict(there.state_dict())
    for memory in (there, other):
        assert memory.all().index.device.type == "cuda"
        assert torch.equal(memory.all().index.cpu(), here.all().index)
    assert torch.equal(there.sample(7).obs["image"].cpu(), here.sample(7).obs["image"])


# --------------------------------------------------------------------------------------- chance


def kept(memory: Memory) -> list[int]:
    labels = [i % 3 for i in range(200)]
    offer(memory, labels, [10])
    return held(memory, labels)


@pytest.mark.parametrize("policy", ["reservoir", "balanced"])
def test_draws_follow_the_seed_and_leave_the_global_stream_alone(policy: str) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    memory = Memory(20, policy)
    by_run = kept(memory)
    drawn = memory.sample(5).index
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert by_run == kept(Memory(20, policy, seed=5)) == kept(Memory(20, policy))
    assert by_run != kept(Memory(20, policy, seed=6))
    torch.manual_seed(6)
    assert by_run != kept(Memory(20, policy))
    same = Memory(20, policy, seed=5)
    kept(same)
    assert torch.equal(same.sample(5).index, drawn)
    assert kept(Memory(20, policy, seed=-1)) == kept(Memory(20, policy, seed=-1))


def test_a_memory_made_before_the_run_is_seeded_follows_the_run() -> None:
    memories = [Memory(20) for _ in range(2)]
    torch.manual_seed(11)
    assert kept(memories[0]) == kept(Memory(20, seed=11))
    torch.manual_seed(12)
    assert kept(memories[1]) == kept(Memory(20, seed=12))


@pytest.mark.parametrize("policy", ["reservoir", "balanced"])
def test_sampling_does_not_change_what_is_kept(policy: str) -> None:
    quiet, busy = Memory(20, policy, seed=0), Memory(20, policy, seed=0)
    labels = [i % 3 for i in range(200)]
    for start in range(0, 200, 10):
        for memory in (quiet, busy):
            add(memory, range(start, start + 10), labels[start : start + 10])
        busy.sample(3)
    assert held(quiet, labels) == held(busy, labels)


# ------------------------------------------------------------------------------------- resuming


def through_checkpoint(state: dict[str, Any], folder: Path) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=folder))
    write(folder, {"memory": state})
    restored: dict[str, Any] = read(folder)["memory"]
    return restored


def continues_exactly(
    policy: str, folder: Path, change: Callable[[dict[str, Any]], object] = lambda state: None
) -> None:
    """Check that a memory goes on from its state as if it had never stopped."""
    labels = [i // 2 % 2 for i in range(100)] + [i % 5 for i in range(200)]
    first = Memory(20, policy, seed=3)
    stops = (7, 100, 190) if policy != "herding" else (100,)
    for stop in stops:
        memory = copy.deepcopy(first)
        for start in range(0, stop, 10 if policy != "herding" else 100):
            end = min(start + 10, stop) if policy != "herding" else stop
            add(memory, range(start, end), labels[start:end])
            memory.sample(3)
        state = through_checkpoint(memory.state_dict(), folder)
        change(state)
        resumed = Memory(20, policy, seed=999)
        resumed.load_state_dict(state)
        for other in (memory, resumed):
            if policy == "herding":
                late = [i for i in range(100, 300) if labels[i] > 1]
                add(other, late, [labels[i] for i in late])
            else:
                offer(other, labels, [9], stop)
        assert held(memory, labels) == held(resumed, labels)
        assert memory.seen == resumed.seen
        for _ in range(3):
            assert torch.equal(memory.sample(6).index, resumed.sample(6).index)
        # What is to come as well: the same state, to the last draw.
        ends = [through_checkpoint(other.state_dict(), folder) for other in (memory, resumed)]
        assert ends[0]["streams"] == ends[1]["streams"]
        classes = [[(label, found.tolist()) for label, found in end["classes"]] for end in ends]
        assert classes[0] == classes[1]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_memory_continues_exactly(policy: str, tmp_path: Path) -> None:
    if policy == "reservoir":  # Before the first batch too, then with the seed of the run.
        fresh = Memory(20, seed=3)
        fresh.load_state_dict(through_checkpoint(Memory(20, seed=999).state_dict(), tmp_path))
        assert kept(fresh) == kept(Memory(20, seed=3))
    continues_exactly(policy, tmp_path)


def _lose_count(state: dict[str, Any]) -> None:
    state["seen"] = state["size"]


def _swap_labels(state: dict[str, Any]) -> None:
    state["columns"]["label"] = state["columns"]["label"].roll(1)


def _lose_streams(state: dict[str, Any]) -> None:
    state["streams"] = [np.random.default_rng(4).bit_generator.state] * 2


def _lose_one_stream(state: dict[str, Any]) -> None:
    state["streams"] = state["streams"][::-1]


def _lose_order(state: dict[str, Any]) -> None:
    state["classes"] = [[label, np.sort(found)[::-1]] for label, found in state["classes"]]


def _lose_classes(state: dict[str, Any]) -> None:
    state["classes"] = []


def _lose_row(state: dict[str, Any]) -> None:
    state["size"] -= 1
    state["columns"] = vars(Batch(**state["columns"]).map(lambda field: field[: state["size"]]))


@pytest.mark.parametrize(
    ("policy", "change"),
    [
        ("reservoir", _lose_count),
        ("reservoir", _swap_labels),
        ("reservoir", _lose_streams),
        ("reservoir", _lose_one_stream),
        ("reservoir", _lose_row),
        ("balanced", _lose_classes),
        ("balanced", _lose_order),
        ("balanced", _lose_streams),
        ("ring", _lose_classes),
        ("ring", _lose_order),
        ("herding", _lose_order),
        ("herding", _lose_one_stream),
    ],
)
def test_the_test_of_resuming_notices(policy: str, change: Any, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, ValueError, KeyError, IndexError)):
        continues_exactly(policy, tmp_path, change)


def test_a_memory_can_be_set_back_to_its_own_state() -> None:
    memory = Memory(10, seed=0)
    memory.add({"index": torch.arange(10)})
    before = memory.all().index
    memory.load_state_dict(memory.state_dict())
    assert torch.equal(memory.all().index, before)


def test_state_of_another_memory_is_refused() -> None:
    memory = Memory(10)
    memory.add({"index": torch.arange(4)})
    with pytest.raises(CheckpointError, match=r"capacity=10, this one capacity=9.*Continue with"):
        Memory(9).load_state_dict(memory.state_dict())
    with pytest.raises(CheckpointError, match="policy=reservoir, this one policy=ring"):
        Memory(10, "ring").load_state_dict(memory.state_dict())
    with pytest.raises(
        CheckpointError, match="not the state of a memory: it lacks capacity, classes"
    ):
        Memory(10).load_state_dict({"columns": {}})


def test_a_state_from_a_device_that_is_not_here_goes_to_the_cpu() -> None:
    memory = Memory(10)
    memory.add({"index": torch.arange(4)})
    state = memory.state_dict() | {"device": "cuda:99"}
    other = Memory(10)
    other.load_state_dict(state)
    assert other.all().index.tolist() == [0, 1, 2, 3]


class Crash(Exception):
    pass


class Rehearses(nn.Module):
    """Learns each batch with rows of a memory, in a plain attribute: the way of a user."""

    policy = "reservoir"
    stop = 0

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)
        self.memory = Memory(40, self.policy)
        self.steps = 0

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs.flatten(1))

    def learn(self, replay: Any) -> Tensor:
        self.steps += 1
        if self.steps == Rehearses.stop:
            raise Crash
        batch = next(replay)
        logits = self(batch.obs)
        loss = F.cross_entropy(logits, batch.label)
        if len(self.memory):
            past = self.memory.sample(10)
            loss = loss + F.mse_loss(self(past.obs), past.logits)
            loss = loss + F.cross_entropy(self(past.obs), past.label)
        self.memory.add(batch, logits=logits)
        return loss


def whole_and_resumed(
    folder: Path, policy: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, Any]:
    """The agents of a run, and of the same run stopped in between and resumed."""
    settings: dict[str, Any] = {
        "model": Rehearses,
        "dataset": "Digits",
        "tasks": 2,
        "train_steps": 40,
        "batch_size": 16,
        "save_every": 7,
        "seed": 3,
        "plot": False,
        "progress": False,
    }
    monkeypatch.setattr(Rehearses, "policy", policy)
    whole = ml(path=folder / "whole", **settings)
    monkeypatch.setattr(Rehearses, "stop", 26)
    with pytest.raises(Crash):
        ml(path=folder / "run", **settings)
    monkeypatch.setattr(Rehearses, "stop", 0)
    return whole.agent, ml(path=folder / "run", resume=True, **settings).agent


def differences(whole: Any, resumed: Any) -> list[str]:
    """What differs between two agents: the number of rows seen, the rows held, weights."""
    one, other = whole.state_dict(), resumed.state_dict()
    found = [name for name, weight in one.items() if not torch.equal(weight, other[name])]
    if whole.memory.seen != resumed.memory.seen:
        found.append("seen")
    if not torch.equal(whole.memory.all().index, resumed.memory.all().index):
        found.append("index")
    return found


@pytest.mark.parametrize("policy", GRADUAL)
def test_a_run_whose_model_holds_a_memory_resumes_exactly(
    policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, resumed = whole_and_resumed(tmp_path, policy, monkeypatch)
    assert whole.memory.seen > 40
    assert differences(whole, resumed) == []


@pytest.mark.parametrize("change", [_lose_count, _lose_streams, _swap_labels])
def test_a_run_that_resumes_with_a_broken_memory_is_seen_to_differ(
    change: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state_dict = Memory.state_dict

    def broken(memory: Memory) -> dict[str, Any]:
        state = state_dict(memory)
        change(state)
        return state

    monkeypatch.setattr(Memory, "state_dict", broken)
    assert differences(*whole_and_resumed(tmp_path, "reservoir", monkeypatch))


# --------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "capacity=0 must be a whole number above 0"),
        ((5.5,), "capacity=5.5 must be a whole number"),
        (("5",), "capacity='5' must be a whole number"),
        (
            (5, "reservior"),
            "no policy 'reservior'. Did you mean 'reservoir'.* balanced, ring, herding",
        ),
        ((5, None), "no policy None. Choose from reservoir"),
    ],
)
def test_arguments_that_make_no_sense(arguments: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Memory(*arguments)


@pytest.mark.parametrize("policy", ["reservoir", "balanced", "ring"])
@pytest.mark.parametrize(
    ("batch", "extras", "message"),
    [
        (
            {"obs": SHORT["obs"]},
            {"logits": torch.zeros(4, 2)},
            "lacks label, unlike .* label, logits",
        ),
        (SHORT, {}, r"lacks logits, unlike the first one, which had label, logits, obs"),
        (
            {**SHORT, "task": torch.arange(4)},
            {},
            "lacks logits and also has task.*same fields and extras",
        ),
        (SHORT, {"logits": torch.zeros(3, 2)}, "`logits` has 3 rows, the first field 4"),
        (
            SHORT,
            {"logits": torch.zeros(4, 3)},
            r"`logits` is float32 \[4, 3\].*was float32 \[B, 2\]",
        ),
        (SHORT, {"logits": torch.zeros(4)}, r"`logits` is float32 \[4\].*was float32 \[B, 2\]"),
        (
            {**SHORT, "label": torch.arange(4, dtype=torch.int32)},
            {"logits": torch.zeros(4, 2)},
            r"`label` is int32 \[4\]; the first batch's was int64 \[B\]",
        ),
        ({**SHORT, "obs": None}, {"logits": torch.zeros(4, 2)}, "`obs` is a NoneType"),
        (SHORT, {"logits": torch.zeros(4, 2), "label": SHORT["label"]}, "already has label"),
        (torch.zeros(4, 3), {}, "takes a Batch.*not a Tensor"),
    ],
)
def test_a_batch_unlike_the_first_is_refused_and_changes_nothing(
    policy: str, batch: Any, extras: Any, message: str
) -> None:
    memory = Memory(6, policy, seed=0)
    memory.add(SHORT, logits=torch.ones(4, 2))
    before = memory.all()
    with pytest.raises(ConfigError, match=message):
        memory.add(batch, **extras)
    assert memory.seen == 4
    assert all(torch.equal(memory.all()[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("policy", "batch", "extras", "message"),
    [
        ("reservoir", {}, {}, "the batch has no fields"),
        ("reservoir", {"obs": [1.0]}, {}, r"`obs` must be a tensor \[B, ...\], not a list"),
        ("reservoir", {"obs": {"a": torch.tensor(1.0)}}, {}, r"`obs.a` must be .* float32 \[\]"),
        (
            "reservoir",
            SHORT,
            {"logits": torch.zeros(5, 2)},
            "`logits` has 5 rows, the first field 4",
        ),
        ("reservoir", {"obs": torch.zeros(1, 2).expand(1, 2)}, {"obs": 1}, "already has obs"),
        ("ring", {"obs": torch.zeros(4, 3)}, {}, "policy='ring' needs the field `label`"),
        ("balanced", {"label": torch.zeros(4)}, {}, r"whole numbers \[B\], not float32 \[4\]"),
        (
            "ring",
            {"label": torch.arange(4).view(2, 2)},
            {},
            r"whole numbers \[B\], not int64 \[2, 2\]",
        ),
        (
            "ring",
            {"label": torch.arange(7)},
            {},
            "capacity=6 is less than one row for each of 7 classes",
        ),
        ("herding", SHORT, {}, r"needs the rows' features: add\(batch, features="),
        (
            "herding",
            SHORT,
            {"features": torch.zeros(4)},
            r"are float32 \[4\]; they must be \[4, D\]",
        ),
        ("herding", SHORT, {"features": torch.zeros(3, 2)}, r"they must be \[4, D\]"),
    ],
)
def test_a_first_batch_that_cannot_be_kept(
    policy: str, batch: Any, extras: Any, message: str
) -> None:
    memory = Memory(6, policy)
    with pytest.raises(ConfigError, match=message):
        memory.add(batch, **extras)
    assert (memory.seen, len(memory)) == (0, 0)
    memory.add(
        {"label": torch.arange(2)},
        **({"features": torch.ones(2, 1)} if policy == "herding" else {}),
    )
    assert len(memory) == 2


def test_a_class_cannot_be_herded_twice() -> None:
    memory = Memory(6, "herding")
    memory.add(SHORT, features=torch.ones(4, 2))
    with pytest.raises(
        ConfigError, match=r"class 2, 3 is already held.*all rows of a class in one add"
    ):
        memory.add({**SHORT, "label": torch.arange(4) + 2}, features=torch.ones(4, 2))
    assert len(memory) == memory.seen == 4


def test_an_empty_memory_has_nothing_to_sample() -> None:
    memory = Memory(4)
    for read_it in (lambda: memory.sample(2), memory.all):
        with pytest.raises(ConfigError, match="The memory is empty: add a batch"):
            read_it()
    memory.add(SHORT)
    with pytest.raises(ConfigError, match="n=0 must be at least 1"):
        memory.sample(0)


def test_more_rows_than_there_is_room_for_say_so() -> None:
    with pytest.raises(ConfigError, match=r"rows need \d+.\d GB on cpu.*Lower `capacity`"):
        Memory(10**13).add({"obs": torch.zeros(1, 10**6)})


def sequences(*lengths):
    """A batch of sequences that count up from the row's length, with their lengths and mask."""
    length = torch.tensor(lengths)
    mask = mask_of(length, max(lengths))
    obs = (length[:, None] + torch.arange(max(lengths))) * mask
    return Batch(obs=obs, length=length, mask=mask, label=torch.arange(len(lengths)))


def test_sequences_of_any_length_are_kept_and_come_as_long_as_the_longest_of_them():
    memory = Memory(4, "ring")
    memory.add(sequences(2, 1)[[1]])
    memory.add(sequences(1, 3)[[1]])
    memory.add(sequences(2)[:0])
    rows = memory.all()
    assert rows.obs.tolist() == [[1, 0, 0], [3, 4, 5]]
    assert rows.length.tolist() == [1, 3]
    assert torch.equal(rows.mask, rows.obs > 0)
    assert steps_of(rows.obs).length is rows.length


@pytest.mark.parametrize(
    "other",
    [
        {"mask": torch.ones(4, 3, dtype=torch.bool), "length": torch.ones(4, dtype=torch.int64)},
        {"mask": torch.ones(4, 3), "length": torch.full((4,), 2)},
        {"mask": torch.ones(4, dtype=torch.bool), "length": torch.ones(4, dtype=torch.int64)},
        {"mask": torch.ones(4, 3, dtype=torch.bool), "length": torch.ones(4, 2)},
        {"mask": torch.ones(4, 3, dtype=torch.bool)},
    ],
)
def test_fields_that_only_share_the_names_of_sequences_leave_the_rest_whole(other: Any) -> None:
    memory = Memory(9)
    memory.add({"obs": torch.ones(4, 3), **other})
    for batch in (memory.all(), memory.sample(4)):
        assert torch.equal(batch.obs, torch.ones(4, 3))
        assert torch.equal(batch.mask, other["mask"])
    wider = {name: torch.cat([f, f], 1) if f.dim() == 2 else f for name, f in other.items()}
    with pytest.raises(ConfigError, match="obs"):
        memory.add({"obs": torch.ones(4, 6), **wider})


def test_a_sample_of_short_sequences_is_not_padded_for_long_ones_elsewhere():
    memory = Memory(9, seed=0)
    memory.add(sequences(2, 2, 2, 7))
    widths = {
        (sample := memory.sample(1)).obs.shape[1] == int(sample.length.max()) for _ in range(20)
    }
    assert widths == {True}


def test_a_memory_of_sequences_continues_after_longer_ones_have_come():
    memory, again = Memory(3, seed=1), Memory(3, seed=1)
    memory.add(sequences(1, 4, 2, 3, 2))
    again.load_state_dict(memory.state_dict())
    for held in (memory, again):
        held.add(sequences(6, 1, 5))
    assert torch.equal(memory.all().obs, again.all().obs)
    assert torch.equal(memory.sample(2).mask, again.sample(2).mask)
