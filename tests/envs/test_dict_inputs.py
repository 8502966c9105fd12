"""Data sets whose inputs are dicts: every part by the rules of the input table, all else as for one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from antelope import load, ml
from antelope.agents.continual import NAMES
from antelope.launcher.mammoth import ContinualModel
from antelope.launcher.run import Run
from antelope.replay import Batch, ConfigError, DataError, Memory

N = 60
_draws = torch.Generator().manual_seed(0)
IMAGE = torch.randint(256, (N, 8, 8, 3), dtype=torch.uint8, generator=_draws)
META = torch.randn(N, 4, dtype=torch.float64, generator=_draws) * 3 + 1e9
TOKENS = torch.randint(12, (N, 5), generator=_draws)
FLAG = torch.rand(N, generator=_draws) > 0.5
Y = torch.arange(N) % 3
SMALL = torch.randn(N, 4, generator=_draws)
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


@pytest.mark.parametrize("strategy", NAMES["strategy"])
def test_a_sequence_with_a_dict_of_one_part_equals_that_of_the_part_alone(
    learn: Any, strategy: str
) -> None:
    how = {"tasks": 3, "strategy": strategy, "train_steps": 2, "batch_size": 16}
    in_a_dict = learn(dataset=({"x": META}, Y), **how)
    alone = learn(model=Alone, dataset=(META, Y), **how)
    assert torch.equal(weights(in_a_dict), weights(alone))
    np.testing.assert_array_equal(in_a_dict.accuracy_matrix, alone.accuracy_matrix)


@pytest.mark.parametrize("strategy", [None, "er"])
def test_an_augmented_image_in_a_dict_equals_the_image_alone(
    learn: Any, strategy: str | None
) -> None:
    how = {"tasks": 3, "aug": "RandomHorizontalFlip", "strategy": strategy, "batch_size": 16}
    in_a_dict = learn(dataset=({"x": IMAGE}, Y), **how)
    assert torch.equal(weights(in_a_dict), weights(learn(model=Alone, dataset=(IMAGE, Y), **how)))


def test_aug_changes_the_image_of_a_dict_and_nothing_else(learn: Any) -> None:
    batch = next(learn(dataset=(PARTS, Y), aug="RandomHorizontalFlip").replay)
    changed = {name: not torch.equal(batch.obs[name], batch.raw[name]) for name in PARTS}
    assert changed == {"image": True, "meta": False, "tokens": False, "flag": False}


@pytest.mark.parametrize(
    ("parts", "says"),
    [({"a": META}, "there is none: `a`"), ({"a": IMAGE, "b": IMAGE}, "are 2: `a`")],
)
def test_aug_without_a_single_image_is_an_error_that_lists_the_parts(
    learn: Any, parts: Any, says: str
) -> None:
    with pytest.raises(ConfigError, match=f"{says}.*__getitem__"):
        learn(dataset=(parts, Y), aug="RandomHorizontalFlip")


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
        return {"a": SMALL[i] + noise, "same": noise, "i": i}, int(Y[i])

    run = learn(dataset=Items(item))
    reads.clear()
    batch: Batch = next(run.replay)
    assert len(reads) == len(batch)
    # One reading: the noise that is alone is the noise that was added.
    added = batch.obs["a"] * run.spec.obs["a"].stddev + run.spec.obs["a"].mean
    alone = batch.obs["same"] * run.spec.obs["same"].stddev + run.spec.obs["same"].mean
    rows = SMALL.index_select(0, batch.obs["i"])
    torch.testing.assert_close(added - alone, rows, atol=1e-5, rtol=0)


def test_a_part_that_never_changes_is_not_read_again(learn: Any) -> None:
    reads = {"with": 0, "without": 0}

    def item(i: int, key: str) -> Any:
        reads[key] += 1
        more = {"constant": META[i]} if key == "with" else {}
        return {"random": torch.rand(4), **more}, int(Y[i])

    for key in reads:
        learn(dataset=Items(lambda i, key=key: item(i, key)))
    assert reads["with"] == reads["without"]


def test_pictures_in_a_dict_have_a_size_of_their_own(learn: Any) -> None:
    small = [Image.fromarray(image.numpy()) for image in IMAGE]
    large = [image.resize((12, 10)).convert("L") for image in small]
    run = learn(dataset=Items(lambda i: ({"a": small[i], "b": large[i]}, int(Y[i]))))
    assert {name: space.shape for name, space in run.spec.obs.items()} == {
        "a": (3, 8, 8),
        "b": (1, 10, 12),
    }
    columns = learn(dataset=({"a": small, "b": large}, Y))
    assert torch.equal(weights(run), weights(columns))
    resized = learn(dataset=({"a": small, "meta": META}, Y), image_size=6)
    assert resized.spec.obs["a"].shape == (3, 6, 6)


def test_data_sets_of_a_sequence_have_the_same_parts_in_any_order(learn: Any) -> None:
    turned = dict(reversed(PARTS.items()))
    run = learn(dataset=[(PARTS, Y), (turned, Y)])
    assert list(run.spec.obs) == list(PARTS)
    with pytest.raises(
        DataError, match=r"inputs image, meta, tokens, flag, .* inputs meta\. All data"
    ):
        learn(dataset=[(PARTS, Y), ({"meta": META}, Y)])
    with pytest.raises(DataError, match=r"inputs `meta` of shape \[4\]"):
        learn(dataset=(PARTS, Y), test_dataset=({**PARTS, "meta": META[:, :2]}, Y))


def test_a_run_continues_and_is_loaded_to_the_bit(learn: Any, tmp_path: Path) -> None:
    class Rehearsing(Joined):
        stops = False

        def __init__(self, obs_shapes: Any, out_features: int) -> None:
            super().__init__(obs_shapes, out_features)
            self.memory = Memory(20, "balanced")

        def learn(self, replay: Any) -> Tensor:
            batch = next(replay)
            if Rehearsing.stops and replay.step == 6:
                raise RuntimeError("stopped")
            self.memory.add(batch)
            past, drawn = self.memory.sample(8), replay.sample(4)
            parts = [(part.obs, part.label) for part in (batch, past, drawn)]
            losses = [nn.functional.cross_entropy(self(obs), label) for obs, label in parts]
            return torch.stack(losses).sum()

    how = {"model": Rehearsing, "dataset": (PARTS, Y), "train_steps": 8, "save_every": 2}
    whole = learn(**how)
    Rehearsing.stops = True
    with pytest.raises(RuntimeError, match="stopped"):
        learn(**how, path=tmp_path / "again")
    Rehearsing.stops = False
    resumed = learn(**how, path=tmp_path / "again", resume=True)
    assert torch.equal(weights(whole), weights(resumed))
    loaded = load(tmp_path / "again", model=Rehearsing)
    assert torch.equal(loaded(PARTS), whole(PARTS))


def test_later_tasks_have_the_parts_of_the_first(learn: Any) -> None:
    parts = {"meta": META, "tokens": TOKENS}
    run = learn(dataset=(parts, Y), num_classes=6)
    run.learn_task((parts, Y + 3))
    assert len(run.accuracy_matrix) == 2
    with pytest.raises(DataError, match=r"integers in `tokens` from 5 to 16, .* 0 to 11"):
        run.learn_task(({**parts, "tokens": TOKENS + 5}, Y))


def test_raw_dicts_are_predicted_in_every_form(learn: Any) -> None:
    run = learn(dataset=(PARTS, Y))
    expected = run.predict(PARTS)
    items = [{name: part[i] for name, part in PARTS.items()} for i in range(N)]
    forms = [items, [(item, 0) for item in items], (PARTS, Y), Items(lambda i: (items[i], 0))]
    for form in forms:
        assert np.array_equal(run.predict(form), expected)
    assert run.predict(items[7]) == expected[7:8]
    numbers = learn(dataset=[({"age": float(i), "id": i}, i % 3) for i in range(N)])
    assert numbers.predict({"age": 3.0, "id": 3}).shape == (1,)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (META, r"are one array\. .* trained on dicts: \{image: uint8 3x8x8"),
        ({"image": IMAGE}, "a dict without `meta`"),
        ({**PARTS, "more": META}, "a dict with `more`"),
        ({**PARTS, "meta": META[:5]}, "differ in number: 60 `image`, 5 `meta`"),
        ({**PARTS, "tokens": TOKENS + 99}, "inputs `tokens` hold 110"),
        ([{"image": IMAGE[0]}], "Item 0 of the inputs is a dict without `meta`"),
    ],
)
def test_other_inputs_are_not_predicted(learn: Any, inputs: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        learn(dataset=(PARTS, Y), train_steps=1).predict(inputs)


def test_the_default_agent_learns_from_all_parts(learn: Any) -> None:
    """Without any one of the parts, two of the four classes look alike: an accuracy of 0.75."""
    draws, label = torch.Generator().manual_seed(1), torch.arange(800) % 4
    image = (
        torch.randint(100, (800, 1, 4, 4), generator=draws)
        + (label == 0)[:, None, None, None] * 100
    )
    tokens = torch.randint(5, (800, 2), generator=draws) + (label == 1)[:, None] * 5
    data = {"image": image.to(torch.uint8), "tokens": tokens, "flag": label == 2}
    run = learn(model=None, dataset=(data, label), train_steps=None, epochs=5)
    assert run.metrics["accuracy"] > 0.9


class Sums(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)


class OneTensor(Sums):
    def forward(self, obs: Any) -> Any:
        return self.layer(obs)


class TwoArguments(Sums):
    def forward(self, meta: Any, tokens: Any) -> Any:
        return self.layer(meta)


class FewRows(Sums):
    def forward(self, obs: Any) -> Any:
        return nn.functional.embedding(obs["tokens"], self.layer.weight).sum(1)[:, :3]


class Cut(Sums):
    def forward(self, obs: Any) -> Any:
        return nn.functional.embedding(obs["meta"].long().abs(), self.layer.weight).sum(1)[:, :3]


class Mammoth(ContinualModel):
    def observe(self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor) -> float:
        return 0.0


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Alone, "dict of meta, tokens; ask for `obs_shapes`"),
        (OneTensor, r"one dict, forward\(obs\): obs\['meta'\], obs\['tokens'\]"),
        (TwoArguments, r"one dict, forward\(obs\): obs\['meta'\], obs\['tokens'\]"),
        (FewRows, r"`tokens` are integers from 0 to 11: .* 12 rows \(spec.obs\['tokens'\].n\)"),
        (Cut, "is looked up .* standardised"),
        (Mammoth, r"one tensor of inputs, .* a dict of meta, tokens. Write learn\("),
    ],
)
def test_a_module_for_one_tensor_is_told_of_the_dict(learn: Any, model: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        learn(model=model, dataset=({"meta": SMALL, "tokens": TOKENS}, Y))


def test_the_only_part_with_ids_is_a_vocabulary(learn: Any) -> None:
    class Embedding(nn.Module):
        def __init__(self, vocab_size: int, out_features: int) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocab_size, out_features)

        def forward(self, obs: Any) -> Any:
            return self.embedding(obs["tokens"]).mean(1)

    run = learn(model=Embedding, dataset=({"meta": META, "tokens": TOKENS}, Y))
    assert run.agent.embedding.num_embeddings == 12
    with pytest.raises(
        ConfigError, match=r"not exactly one part of .* holds ids; take `spec.obs\[name\].n`"
    ):
        learn(model=Embedding, dataset=({"more": TOKENS, "tokens": TOKENS}, Y))


def test_alterations_of_dicts_are_refused(learn: Any) -> None:
    class Altered(Items):
        def alterations(self, tasks: int, seed: int = 0) -> Any:
            return [lambda obs: obs] * tasks

    with pytest.raises(ConfigError, match=r"has alterations, which change one array .* inputs a"):
        learn(dataset=Altered(lambda i: ({"a": META[i]}, int(Y[i]))), tasks=2)


@pytest.mark.parametrize(
    "data",
    [([SMALL, TOKENS], Y), ((SMALL, TOKENS), Y), (SMALL, TOKENS, Y)],
    ids=["list", "tuple", "flat"],
)
def test_several_inputs_without_names_are_answered_with_a_dict(learn: Any, data: Any) -> None:
    with pytest.raises((ConfigError, DataError), match=r"\{'first': a, 'second': b\}, targets"):
        learn(dataset=data)


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (
            lambda i: ({"a": META[i]} if i < 7 else {"b": META[i]}, 0),
            r"item 7 of Items is a dict of b, and that of others a dict of a",
        ),
        (
            lambda i: ({"a": META[i], "b": META[i, : 2 + (i == 9)]}, 0),
            r"inputs `b` of the items of Items differ in shape: \[2\] at 0, \[3\] at 9. Inside a dict",
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


def test_a_list_of_dicts_is_answered_with_the_dict_that_it_should_be(tmp_path: Path) -> None:
    rows = [{"image": image, "meta": meta} for image, meta in zip(IMAGE, META, strict=True)]
    with pytest.raises(DataError, match=r"one dict of columns, \{'image': ..., 'meta': ...\}"):
        ml(model=Joined, dataset=(rows, Y), path=tmp_path)
