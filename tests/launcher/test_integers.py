"""Integer inputs through the public interface: given as they are, learnt by default, refused with a word."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from antelope import ConfigError, DataError, Run, ml
from antelope.launcher.assembly.infer import inferred
from antelope.replay import Space, Spec


@pytest.fixture
def quick(tmp_path: Path) -> Any:
    """`ml` that writes to a directory of this test, and shows nothing."""

    def run(*words: str, **settings: Any) -> Run:
        return ml(
            *words, **{"path": tmp_path / "run", "plot": False, "progress": False, **settings}
        )

    return run


def draw(n: int, length: int, values: int, seed: int = 0) -> Tensor:
    return torch.randint(values, (n, length), generator=torch.Generator().manual_seed(seed))


TOKENS = draw(300, 3, 10)
CLASSES = (TOKENS.sum(1) > 13).long()


class Bag(nn.Module):
    """Sums what each token counts for; keeps what it was given."""

    def __init__(self, vocab_size: int, out_features: int):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, out_features)
        self.seen: set[int] = set()

    def forward(self, obs: Tensor) -> Tensor:
        self.seen.update(obs.flatten().tolist())
        return self.embedding(obs).sum(1)

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label)


class Rows(Bag):
    def __init__(self, num_embeddings: int, out_features: int):
        super().__init__(num_embeddings, out_features)


class Linear(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs)


class TestReceived:
    @pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
    @pytest.mark.parametrize("settings", [{}, {"standardize": False}], ids=["usual", "false"])
    def test_a_model_meets_the_ids_themselves(
        self, dtype: torch.dtype, settings: dict[str, bool], quick: Any
    ) -> None:
        data = (TOKENS.to(dtype), CLASSES)
        run = quick(model=Bag, dataset=data, epochs=20, lr=0.05, **settings)
        assert run.agent.seen == set(range(10))
        assert run.agent.embedding.num_embeddings == run.spec.obs.n == 10
        assert run.spec.obs.dtype == next(run.replay).obs.dtype == torch.int64
        assert run.metrics["accuracy"] > 0.9

    def test_rows_of_an_embedding_are_inferred_by_either_name(self, quick: Any) -> None:
        run = quick(model=Rows, dataset=(TOKENS, CLASSES), epochs=1)
        assert run.agent.embedding.num_embeddings == 10

    def test_ids_that_are_only_held_out_have_a_row(self, quick: Any) -> None:
        test = (TOKENS + 5, CLASSES)
        run = quick(model=Bag, dataset=(TOKENS, CLASSES), test_dataset=test, epochs=1)
        assert run.agent.embedding.num_embeddings == 15

    def test_numbers_are_made_of_them_on_request(self, quick: Any) -> None:
        run = quick(model=Linear, dataset=(TOKENS, CLASSES), standardize=True, epochs=20, lr=0.05)
        batch = run.replay.sample(500)
        assert batch.obs.dtype == torch.float32
        assert abs(float(batch.obs.mean())) < 0.1
        assert run.metrics["accuracy"] > 0.9

    def test_a_word_of_the_console_says_it_too(self, quick: Any) -> None:
        run = quick("standardize=true", model=Linear, dataset=(TOKENS, CLASSES), epochs=1)
        assert run.spec.obs.dtype == torch.float32

    def test_what_becomes_of_them_is_said(
        self, quick: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        quick(model=Bag, dataset=(TOKENS, CLASSES), epochs=1, progress=True)
        quick(dataset=(TOKENS + 2**30, CLASSES), epochs=1, progress=True)
        out, err = capsys.readouterr()
        shown = " ".join((out + err).split())
        assert "integers from 0 to 9, unchanged" in shown
        assert "integers up to 1,073,741,833: treated as numbers, since ids" in shown

    def test_models_that_observe_meet_them_twice(self, quick: Any) -> None:
        run = quick(model=Observes, dataset=(TOKENS, CLASSES), epochs=1)
        assert run.agent.embedding.num_embeddings == 10


class Observes(Bag):
    def observe(self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor) -> float:
        assert inputs.dtype == torch.int64
        assert torch.equal(inputs, not_aug_inputs)
        loss = F.cross_entropy(self(inputs), labels)
        self.opt.zero_grad()  # type: ignore[operator, union-attr]
        loss.backward()
        self.opt.step()  # type: ignore[operator, union-attr]
        return float(loss.detach())

    learn = None  # type: ignore[assignment]

    def __init__(self, vocab_size: int, out_features: int):
        super().__init__(vocab_size, out_features)
        self.net = self.embedding


def looking_up(rows: Any) -> type[nn.Module]:
    """A model that makes ids of a table of floats, three columns of ids and one of numbers."""

    class Model(nn.Module):
        def __init__(self, spec: Any, out_features: int):
            super().__init__()
            self.spec = spec
            self.embedding = nn.Embedding(10, out_features)

        def forward(self, obs: Tensor) -> Tensor:
            return rows(self, obs).reshape(len(obs), -1, self.embedding.embedding_dim).mean(1)

    return Model


def counting(space: Any) -> type[gymnasium.Env[Any, Any]]:
    """An environment with observations from the given space and episodes of five steps."""

    class Counts(gymnasium.Env[Any, Any]):
        observation_space = space
        action_space = spaces.Discrete(2)

        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            self.steps = 0
            return self.observation_space.sample(), {}

        def step(self, action: Any) -> Any:
            self.steps += 1
            return self.observation_space.sample(), 1.0, self.steps == 5, False, {}

    return Counts


LOOKED_UP = {
    "a column": lambda self, obs: self.embedding(obs[:, 0].long().clamp(0, 9)),
    "columns": lambda self, obs: self.embedding(obs.split([3, 1], 1)[0].to(torch.int64) % 10),
    "an index": lambda self, obs: self.embedding.weight[obs.long()[:, :3] % 10],
    "one-hot": lambda self, obs: (
        F.one_hot(obs[..., 1].int().long().abs(), 10).float() @ self.embedding.weight
    ),
}
FINE = {
    "undone": lambda self, obs: self.embedding(
        (obs * self.spec.obs.stddev + self.spec.obs.mean)[:, :3].round().long()
    ),
    "bins": lambda self, obs: self.embedding((obs * 2 + 5).long().clamp(0, 9)),
    "columns of whole numbers": lambda self, obs: self.embedding.weight[:4] * obs.long()[..., None],
    "mapped over rows": lambda self, obs: torch.vmap(
        lambda row: self.embedding.weight.sum(0) * row.long().sum()
    )(obs),
}


class TestRefused:
    def test_a_linear_layer_cannot_take_them(self, quick: Any) -> None:
        with pytest.raises(ConfigError, match=r"int64 \[2, 3\].*standardize=true"):
            quick(model=Linear, dataset=(TOKENS, CLASSES))

    def test_a_convolution_cannot_take_them(self, quick: Any) -> None:
        images = draw(20, 64, 256).view(20, 1, 8, 8)
        with pytest.raises(ConfigError, match="standardize=true"):
            quick(model="CNN", dataset=(images, torch.arange(20) % 2))

    def test_an_embedding_without_a_row_for_the_largest(self, quick: Any) -> None:
        rare = TOKENS.clone()
        rare[7, 1] = 99
        message = "99 is out of range of its 10 rows. .*needs 100 rows.*`vocab_size`"
        with pytest.raises(ConfigError, match=message):
            quick("model.vocab_size=10", model=Bag, dataset=(rare, CLASSES))

    def test_an_embedding_has_no_row_for_a_negative_one(self, quick: Any) -> None:
        padded = TOKENS.clone()
        padded[7, 1] = -1
        with pytest.raises(ConfigError, match=r"-1 is out of range.*none for negative numbers"):
            quick(model=Bag, dataset=(padded, CLASSES))

    def test_a_model_that_only_learns_is_told_in_the_first_step(self, quick: Any) -> None:
        class Learns(Linear):
            def forward(self, obs: Tensor) -> Tensor:
                return self.layer(obs.float())

            def learn(self, replay: Any) -> Tensor:
                batch = next(replay)
                return F.cross_entropy(self.layer(batch.obs), batch.label)

        with pytest.raises(RuntimeError) as raised:
            quick(model=Learns, dataset=(TOKENS, CLASSES))
        assert "standardize=true" in raised.value.__notes__[0]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
    def test_standardised_ids_are_not_looked_up(self, dtype: torch.dtype, quick: Any) -> None:
        class Cuts(Bag):
            def __init__(self, out_features: int):
                super().__init__(10, out_features)

            def forward(self, obs: Tensor) -> Tensor:
                return super().forward(obs.long())

        quick(model=Cuts, dataset=(TOKENS, CLASSES), epochs=1)
        with pytest.raises(ConfigError, match=r"Give integers \(int32, int64\)"):
            quick(model=Cuts, dataset=(TOKENS.to(dtype), CLASSES))

    @pytest.mark.parametrize("mistake", LOOKED_UP)
    def test_nor_are_columns_of_a_table_in_any_way(self, mistake: str, quick: Any) -> None:
        table = torch.cat([TOKENS.float(), torch.randn(len(TOKENS), 1)], 1)
        with pytest.raises(ConfigError, match="or a part of it, is looked up"):
            quick(model=looking_up(LOOKED_UP[mistake]), dataset=(table, CLASSES))

    @pytest.mark.parametrize("way", FINE)
    def test_what_is_no_lookup_of_cut_numbers_runs(self, way: str, quick: Any) -> None:
        table = torch.cat([TOKENS.float(), torch.randn(len(TOKENS), 1)], 1)
        run = quick(model=looking_up(FINE[way]), dataset=(table, CLASSES), epochs=1)
        assert math.isfinite(run.metrics["loss"])

    @pytest.mark.parametrize("space", [spaces.Discrete(4), spaces.MultiDiscrete([4, 3])], ids=str)
    def test_one_hot_observations_are_no_ids(self, space: Any, quick: Any) -> None:
        cut = looking_up(lambda self, obs: self.embedding(obs.long()))
        with pytest.raises(ConfigError, match=r"arrive one-hot.*argmax\(-1\)"):
            quick(model=cut, env=counting(space))

        def parts(self: Any, obs: Tensor) -> Tensor:
            ids = [
                part.long().argmax(-1) for part in obs.split(self.spec.obs.nvec or obs.shape[1], -1)
            ]
            return self.embedding(torch.stack(ids, 1))

        quick(model=looking_up(parts), env=counting(space), train_steps=20, seed_steps=5)

    def test_ids_in_a_table_of_floats_are_those_that_were_put_in(self, quick: Any) -> None:
        table = torch.cat([TOKENS.float(), torch.randn(len(TOKENS), 1)], 1)
        model = looking_up(FINE["undone"])
        run = quick(model=model, dataset=(table, CLASSES), epochs=20, lr=0.05)
        assert run.metrics["accuracy"] > 0.9

    def test_floats_have_no_vocabulary(self, quick: Any) -> None:
        with pytest.raises(ConfigError, match="inputs are float32 3, not integers"):
            quick(model=Bag, dataset=(TOKENS.float(), CLASSES))

    def test_an_augmentation_changes_numbers(self, quick: Any) -> None:
        images = draw(20, 64, 256).view(20, 1, 8, 8)
        with pytest.raises(ConfigError, match=r"aug= needs numbers.*standardize=true"):
            quick(dataset=(images, torch.arange(20) % 2), aug=torch.nn.Identity())

    @pytest.mark.parametrize("how", [{"model": "VAE"}, {"generate": True}])
    def test_generation_is_of_numbers(self, how: dict[str, Any], quick: Any) -> None:
        images = draw(20, 256, 256).view(20, 1, 16, 16)
        with pytest.raises(ConfigError, match=r"Generation needs numbers.*standardize=true"):
            quick(dataset=(images, torch.arange(20) % 2), **how)

    def test_integers_and_floats_are_two_things(self, quick: Any) -> None:
        with pytest.raises(DataError, match="int64, held-out arrays of float32"):
            quick(dataset=(TOKENS, CLASSES), test_dataset=(TOKENS.float(), CLASSES))


def test_a_vocabulary_is_inferred_of_ids_alone() -> None:
    device = torch.device("cpu")
    ids = Space((3,), torch.int64, low=0, high=9, ids=10)
    table = inferred(Spec(ids, Space((2,))), device=device)
    assert (table["vocab_size"], table["num_embeddings"], table["in_features"]) == (10, 10, 3)
    table = inferred(Spec(Space((3,)), Space((2,))), device=device)
    assert not {"vocab_size", "num_embeddings"} & table.keys()


class TestDefaultAgent:
    def test_words_count_wherever_they_are(self, quick: Any) -> None:
        tokens = draw(1500, 20, 1000)
        meaning = torch.randn(1000, generator=torch.Generator().manual_seed(1))
        run = quick(dataset=(tokens, (meaning[tokens].sum(1) > 0).long()))
        assert run.metrics["accuracy"] > 0.7

    def test_a_place_can_decide(self, quick: Any) -> None:
        tokens = draw(1500, 20, 100)
        first = torch.randint(2, (100,), generator=torch.Generator().manual_seed(1))[tokens[:, 0]]
        assert quick(dataset=(tokens, first)).metrics["accuracy"] > 0.9

    def test_places_are_kept_apart_in_long_texts_too(self, quick: Any) -> None:
        tokens = draw(300, 200, 20)
        tokens[:, :100] += 20 * (torch.arange(300) % 2)[:, None]
        tokens[:, 100:] += 20 * (torch.arange(300) % 2 == 0)[:, None]  # As often in all of it.
        assert quick(dataset=(tokens, torch.arange(300) % 2)).metrics["accuracy"] > 0.9

    @pytest.mark.parametrize("shift", [0, -50, 1_000_000])
    def test_amounts_are_numbers(self, shift: int, quick: Any) -> None:
        table = draw(400, 2, 100)
        run = quick(dataset=(table + shift, (table.sum(1) > 100).long()))
        assert run.metrics["accuracy"] > 0.85

    def test_single_integers(self, quick: Any) -> None:
        values = draw(300, 1, 50)[:, 0]
        assert quick(dataset=(values, (values > 25).long())).metrics["accuracy"] > 0.9

    def test_values_are_predicted(self, quick: Any) -> None:
        table = draw(400, 3, 100)
        values = table @ torch.tensor([2, -1, 1]) / 2
        assert quick(dataset=(table, values)).metrics["r2"] > 0.9

    @pytest.mark.parametrize("encoder", [None, "CNN"])
    def test_pictures_of_integers(self, encoder: str | None, quick: Any) -> None:
        images = draw(200, 64, 256).view(200, 1, 8, 8)
        images[::2, :, :4] //= 2
        run = quick(dataset=(images, torch.arange(200) % 2), encoder=encoder)
        assert run.metrics["accuracy"] > 0.85

    def test_by_reward_and_through_an_encoder_of_ours(self, quick: Any) -> None:
        run = quick(dataset=(TOKENS, CLASSES), rl=True, encoder="MLP")
        assert run.metrics["accuracy"] > 0.85

    @pytest.mark.parametrize(
        ("strategy", "scenario"),
        [
            ("er", "class"),
            ("cwr", "class"),
            ("icarl", "class"),
            ("packnet", "task"),
        ],
    )
    def test_a_sequence(self, strategy: str, scenario: str, quick: Any) -> None:
        tokens = draw(400, 3, 40)
        data = (tokens, tokens[:, 0] // 10)
        epochs = 30 if strategy == "cwr" else 10  # Plain SGD on features of the first task alone.
        run = quick(dataset=data, tasks=2, strategy=strategy, scenario=scenario, epochs=epochs)
        assert run.metrics["task_il_accuracy"] > 0.8
