"""Data sets whose inputs are dicts: every part by the rules of the input table, all else as for one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from antelope import ml
from antelope.launcher.run import Run
from antelope.replay import Batch, DataError

N = 60
_draws = torch.Generator().manual_seed(0)
IMAGE = torch.randint(256, (N, 8, 8, 3), dtype=torch.uint8, generator=_draws)
META = torch.randn(N, 4, dtype=torch.float64, generator=_draws) * 3 + 1e9
TOKENS = torch.randint(12, (N, 5), generator=_draws)
FLAG = torch.rand(N, generator=_draws) > 0.5
Y = torch.arange(N) % 3
PARTS = {"image": IMAGE, "meta": META, "tokens": TOKENS, "flag": FLAG}


class Joined(nn.Module):
    """A linear layer on all parts of a dict of inputs."""

    def __init__(self, obs_shapes: dict[str, tuple[int, ...]], out_features: int) -> None:
        super().__init__()
        self.names = list(obs_shapes)
        self.layer = nn.Linear(sum(map(int, map(np.prod, obs_shapes.values()))), out_features)

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        parts = [obs[name].float().unsqueeze(-1).flatten(1) for name in self.names]
        return self.layer(torch.cat(parts, 1))  # type: ignore[no-any-return]


class Alone(nn.Module):
    """The same layer on one tensor."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs.float().reshape(len(obs), -1))  # type: ignore[no-any-return]


class Items(Dataset[Any]):
    """A data set of items computed by a function of their number."""

    def __init__(self, item: Any, n: int = N) -> None:
        self.item, self.n = item, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Any:
        return self.item(i)


@pytest.fixture
def learn(tmp_path: Path) -> Any:
    runs = iter(range(100))

    def run(*words: str, **settings: Any) -> Run:
        usual = {"model": Joined, "train_steps": 3, "plot": False, "progress": False}
        return ml(*words, **{**usual, "path": tmp_path / str(next(runs)), **settings})

    return run


def weights(run: Run) -> Tensor:
    return torch.cat([p.detach().flatten() for p in run.agent.parameters()])


def test_each_part_is_read_by_the_rules_of_a_single_input(learn: Any) -> None:
    run = learn(dataset=(PARTS, Y))
    obs = next(run.replay).obs
    assert {name: (part.dtype, tuple(part.shape[1:])) for name, part in obs.items()} == {
        "image": (torch.float32, (3, 8, 8)),
        "meta": (torch.float32, (4,)),
        "tokens": (torch.int64, (5,)),
        "flag": (torch.float32, ()),
    }
    rows = torch.cat([batch.obs["meta"] for batch in run.replay.once()])
    torch.testing.assert_close(rows.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    assert run.spec.obs["tokens"].n == 12
    assert run.spec.obs["image"].mean.shape == (3,)


@pytest.mark.parametrize(
    "part", [IMAGE, META, TOKENS, FLAG, META[:, 0].float()], ids=["u8", "f64", "ids", "bool", "f"]
)
def test_a_dict_of_one_part_gives_the_weights_of_the_part_alone(learn: Any, part: Tensor) -> None:
    in_a_dict = learn(dataset=({"x": part}, Y))
    alone = learn(model=Alone, dataset=(part, Y))
    assert torch.equal(weights(in_a_dict), weights(alone))
    assert in_a_dict.metrics == alone.metrics


@pytest.mark.parametrize("strategy", ["er", "ewc", "lwf", "agem"])
def test_a_sequence_with_a_dict_of_one_part_equals_that_of_the_part_alone(
    learn: Any, strategy: str
) -> None:
    how = {"tasks": 3, "strategy": strategy, "train_steps": 2, "batch_size": 16}
    in_a_dict = learn(dataset=({"x": META}, Y), **how)
    alone = learn(model=Alone, dataset=(META, Y), **how)
    assert torch.equal(weights(in_a_dict), weights(alone))
    np.testing.assert_array_equal(in_a_dict.accuracy_matrix, alone.accuracy_matrix)


def test_items_with_dicts_are_read_like_arrays(learn: Any) -> None:
    items = Items(lambda i: ({name: part[i] for name, part in PARTS.items()}, int(Y[i])))
    assert torch.equal(weights(learn(dataset=items)), weights(learn(dataset=(PARTS, Y))))


def test_nested_dicts_stay_nested(learn: Any) -> None:
    class Nested(Joined):
        def __init__(self, obs_shapes: Any, out_features: int) -> None:
            super().__init__({"a": obs_shapes["a"], "c": obs_shapes["b"]["c"]}, out_features)

        def forward(self, obs: Any) -> Tensor:
            return super().forward({"a": obs["a"], "c": obs["b"]["c"]})

    run = learn(model=Nested, dataset=({"a": META, "b": {"c": FLAG}}, Y))
    flat = learn(dataset=({"a": META, "c": FLAG}, Y))
    assert torch.equal(weights(run), weights(flat))


def test_an_item_read_at_each_use_is_read_once_for_all_its_parts(learn: Any) -> None:
    reads = []

    def item(i: int) -> Any:
        reads.append(i)
        noise = torch.rand(4)  # A random transform: the rows are read at each use.
        return {"a": META[i].float() + noise, "same": noise}, int(Y[i])

    run = learn(dataset=Items(item), standardize=False)
    reads.clear()
    batch: Batch = next(run.replay)
    assert len(reads) == len(batch)
    raw = batch.obs["a"] * 1  # In [0, 1] by the part's own bounds.
    assert raw.shape == batch.obs["same"].shape


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (
            lambda i: ({"a": META[i]} if i < 7 else {"b": META[i]}, 0),
            r"item 7 of Items is a dict of b, and that of others a dict of a",
        ),
        (
            lambda i: ({"a": META[i], "b": META[i, : 2 + (i == 9)]}, 0),
            r"inputs `b` of the items of Items differ in shape: \[2\] at 0, \[3\] at 9",
        ),
        (lambda i: ({"a": None if i == 3 else META[i]}, 0), r"item 3 .* without a value in `a`"),
        (lambda i: ({"a": "word"}, 0), r"item 0 .* text in `a` \('word'\)\. Encode"),
        (lambda i: ({}, 0), "an empty dict"),
        (lambda i: ({3: META[i]}, 0), "the key 3. Name its parts with strings"),
        (lambda i: ({"a": META[i]}, {"b": 1}), "dict"),
        (
            lambda i: (META[i], META[i], 0),
            r"a tuple of 3 .*return \{'first': item\[0\], 'second': item\[1\]\}, item\[2\]",
        ),
        (
            lambda i: {"image": META[i], "meta": META[i], "label": 0},
            r"return \{'image': item\['image'\], 'meta': item\['meta'\]\}, item\['label'\]",
        ),
    ],
)
def test_items_that_do_not_fit_are_named_with_their_part(learn: Any, item: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        learn(dataset=Items(item))


def test_parts_of_different_lengths_are_named(learn: Any) -> None:
    with pytest.raises(DataError, match=f"has {N - 1} inputs `b` but {N} targets"):
        learn(dataset=({"a": META, "b": META[1:]}, Y))
