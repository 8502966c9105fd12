"""A `[B]` that meets a `[B, 1]` in the first learning step is an error that names both places."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import ConfigError, Run, ml

X = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
Y = 3 * X[:, 0] + X[:, 1]
SHORT: dict[str, Any] = {"plot": False, "progress": False, "device": "cpu"}


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Values(nn.Module):
    """One number per row, `[B, 1]`; its loss is the subject of each test."""

    def __init__(self, in_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, 1)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs)

    def learn(self, replay: Any, log: Any) -> Any:
        return self.loss_of(next(replay), log)

    def loss_of(self, batch: Any, log: Any) -> Tensor:
        raise NotImplementedError


class Choices(nn.Module):
    """Q-values and a greedy policy."""

    def __init__(self, in_features: int, num_actions: int):
        super().__init__()
        self.q = nn.Linear(in_features, num_actions)

    def forward(self, obs: Tensor) -> Tensor:
        return self.q(obs)

    def learn(self, replay: Any, log: Any) -> Any:
        return self.loss_of(next(replay), log)

    def loss_of(self, batch: Any, log: Any) -> Tensor:
        raise NotImplementedError


def with_loss(base: type, loss_of: Any) -> type:
    return type("Model", (base,), {"loss_of": loss_of})


def fit(model: Any, **settings: Any) -> Run:
    return ml(model=model, dataset=(X, Y), train_steps=2, **SHORT, **settings)


def play(model: Any, **settings: Any) -> Run:
    few = {"env": "CartPole-v1", "batch_size": 16, "seed_steps": 32, "train_steps": 40}
    return ml(model=model, eval_episodes=1, **few, **SHORT, **settings)


def refused(run: Any, model: Any, **settings: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        run(model, **settings)
    return str(raised.value)


def test_an_output_squeezed_against_the_label_is_an_error_with_both_places() -> None:
    def loss_of(self: Any, batch: Any, log: Any) -> Tensor:
        predicted = self(batch.obs).squeeze(-1)
        return ((predicted - batch.label) ** 2).mean()

    message = refused(fit, with_loss(Values, loss_of))
    assert "`sub` of a [32] and a [32, 1] gives [32, 32]" in message
    assert "the [32, 1] is `batch.label`" in message
    assert "`.squeeze(-1)` the [32, 1]" in message
    here = rf"{Path(__file__).name}:(\d+)"
    second, first = re.findall(here + r" \(`(.*?)`\)", message)
    assert first[1] == "predicted = self(batch.obs).squeeze(-1)"
    assert second[1] == "return ((predicted - batch.label) ** 2).mean()"
    assert int(second[0]) == int(first[0]) + 1


MISTAKES = {
    "loss": lambda self, b, log: F.mse_loss(self(b.obs)[:, 0], b.label),
    "label squeezed": lambda self, b, log: (self(b.obs) - b.label.squeeze()).abs().mean(),
    "absolute": lambda self, b, log: F.l1_loss(
        self(b.obs).flatten(), b.label, reduction="none"
    ).sum(),
    "product": lambda self, b, log: (self(b.obs).view(-1) * b.label.float()).mean(),
    "reversed": lambda self, b, log: (1 - b.label - self(b.obs).squeeze(1)).pow(2).mean(),
    "function": lambda self, b, log: torch.sub(b.label, self(b.obs)[..., 0]).square().sum(),
    "larger": lambda self, b, log: torch.maximum(b.label, self(b.obs).flatten()).mean(),
    "deviations": lambda self, b, log: (
        (self(b.obs) - self(b.obs).mean()) * (b.label - b.label.mean())[:, 0]
    ).mean(),
    "ensemble": lambda self, b, log: (
        (torch.stack([self(b.obs), self(-b.obs)]) - b.label.squeeze(-1)) ** 2
    ).mean(),
    "bound": lambda self, b, log: torch.clamp(self(b.obs).flatten(), max=b.label).mean(),
    "from a number": lambda self, b, log: torch.rsub(self(b.obs)[:, 0], b.label).abs().mean(),
    "distance": lambda self, b, log: torch.dist(self(b.obs).squeeze(1), b.label),
    "distances": lambda self, b, log: F.pairwise_distance(self(b.obs)[:, 0], b.label).mean(),
    "angle": lambda self, b, log: 1 - F.cosine_similarity(self(b.obs)[:, 0], b.label, dim=0).mean(),
    # A dimension was added, and then all pairs only averaged.
    "column": lambda self, b, log: (
        (self(b.obs).flatten() - b.label[:, 0].unsqueeze(1)).square().mean()
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_form_of_it_is_found(mistake: str) -> None:
    assert "every row with every other" in refused(fit, with_loss(Values, MISTAKES[mistake]))


def pairs(self: Any, batch: Any, log: Any) -> Tensor:
    """What is done with all pairs of rows on purpose, or is no pair of rows at all."""
    predicted, label = self(batch.obs), batch.label.squeeze(-1)
    ranked = (predicted - predicted.T) * (label[:, None] - label[None]).sign()
    differences = (batch.label - label).abs()  # Of labels alone.
    same = (label[:, None] == predicted.squeeze(-1)).float()
    kernel = torch.exp(-((label[:, None] - predicted.squeeze(-1)) ** 2))
    cells = batch.label - torch.linspace(0, 1, len(batch.label))  # As many as rows, by chance.
    means = batch.label * batch.obs.repeat(1, 11)[:, : len(label)].mean(0)
    others = ranked + differences + same * 0 + kernel + cells + means
    return others.mean() * 0 + F.mse_loss(predicted, batch.label)


def test_pairs_that_are_meant_are_left_alone() -> None:
    weights = fit(with_loss(Values, pairs)).agent.layer.weight
    plain = fit(with_loss(Values, lambda self, b, log: F.mse_loss(self(b.obs), b.label)))
    assert torch.allclose(weights, plain.agent.layer.weight)


def test_a_metric_of_wrong_pairs_is_found_too() -> None:
    def loss_of(self: Any, batch: Any, log: Any) -> Tensor:
        log.accuracy = ((self(batch.obs).flatten() > 0) == (batch.label > 0)).float().mean()
        return F.mse_loss(self(batch.obs), batch.label)

    assert "`eq` of a [32] and a [32, 1]" in refused(fit, with_loss(Values, loss_of))


def test_a_model_that_catches_what_it_can_is_told_all_the_same() -> None:
    def loss_of(self: Any, batch: Any, log: Any) -> Tensor:
        try:
            return (self(batch.obs)[:, 0] - batch.label).square().mean()
        except Exception:
            return self(batch.obs).mean()

    assert "every row with every other" in refused(fit, with_loss(Values, loss_of))


def test_the_second_batch_of_a_step_and_one_that_is_sampled_count_too() -> None:
    class Two(Values):
        def learn(self, replay: Any, log: Any) -> Any:
            batch, more = next(replay), replay.sample(8)
            wrong = (self(more.obs)[:, 0] - more.label).square().mean()
            return F.mse_loss(self(batch.obs), batch.label) + wrong

    assert "a [8] and a [8, 1] gives [8, 8]" in refused(fit, Two)


def q_of(self: Any, batch: Any) -> Tensor:
    return self(batch.obs).gather(1, batch.action[:, None])  # [B, 1]


@pytest.mark.parametrize(
    "loss_of",
    [
        lambda self, b, log: F.smooth_l1_loss(
            q_of(self, b), b.reward + b.discount * self(b.next_obs).amax(1).detach()
        ),
        lambda self, b, log: (
            (q_of(self, b).squeeze(-1) - b.reward - b.discount * self(b.next_obs).amax(1, True))
            .pow(2)
            .mean()
        ),
        lambda self, b, log: (
            (q_of(self, b).squeeze(-1) - b.reward.view(-1, 1) - self(b.next_obs).amax(1, True))
            .pow(2)
            .mean()
        ),
    ],
)
def test_a_reward_against_a_value_is_found(loss_of: Any) -> None:
    message = refused(play, with_loss(Choices, loss_of))
    assert "[16] and a [16, 1] gives [16, 16]" in message
    assert "batch." in message


def test_quantiles_and_columns_of_everything_are_right() -> None:
    def loss_of(self: Any, batch: Any, log: Any) -> Tensor:
        target = batch.reward[:, None] + batch.discount[:, None] * self(batch.next_obs).amax(
            1, True
        )
        atoms = batch.reward[:, None] + batch.discount[:, None] * torch.linspace(0, 1, len(batch))
        pairs = atoms[:, None, :] - q_of(self, batch)[:, :, None]
        return F.smooth_l1_loss(q_of(self, batch), target.detach()) + 0 * pairs.mean()

    assert play(with_loss(Choices, loss_of)).metrics["return"] > 0


def test_the_first_steps_that_draw_nothing_are_not_the_first() -> None:
    class Waits(Choices):
        def learn(self, replay: Any, log: Any) -> Any:
            if len(replay) < 36:
                return None
            batch = next(replay)
            return (q_of(self, batch) - batch.reward).square().mean()

    assert "every row with every other" in refused(play, Waits)


def test_a_model_that_observes_and_a_strategy_around_one_are_watched() -> None:
    class Observes:
        def observe(self, inputs: Tensor, labels: Tensor) -> float:
            self.opt.zero_grad()  # type: ignore[attr-defined]
            loss = (self.net(inputs)[:, 0] - labels).square().mean()  # type: ignore[attr-defined]
            loss.backward()
            return float(loss)

    assert "every row with every other" in refused(fit, Observes)

    class Classes(nn.Module):
        def __init__(self, in_features: int, num_classes: int):
            super().__init__()
            self.layer = nn.Linear(in_features, num_classes)

        def forward(self, obs: Tensor) -> Tensor:
            return self.layer(obs.flatten(1))

        def learn(self, replay: Any) -> Tensor:
            batch = next(replay)
            sure = self(batch.obs).softmax(-1).gather(1, batch.label[:, None])  # [B, 1]
            each = F.cross_entropy(self(batch.obs), batch.label, reduction="none")  # [B]
            return ((1 - sure) * each).mean()

    with pytest.raises(ConfigError, match="every row with every other"):
        ml(model=Classes, dataset="Digits", tasks=2, strategy="er", train_steps=2, **SHORT)


def test_later_steps_are_not_watched_and_cost_nothing() -> None:
    def loss_of(self: Any, batch: Any, log: Any) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        watched = torch.overrides._get_current_function_mode() is not None
        assert watched == (self.calls == 1)
        return F.mse_loss(self(batch.obs), batch.label)

    assert fit(with_loss(Values, loss_of)).agent.calls == 2


def test_an_ensemble_that_is_mapped_over_its_weights_is_watched() -> None:
    class Several(Values):
        def __init__(self, in_features: int):
            super().__init__(in_features)
            self.weights = nn.Parameter(torch.randn(3, 1, in_features))
            self.right = True

        def learn(self, replay: Any) -> Tensor:
            batch = next(replay)

            def one(weight: Tensor) -> Tensor:
                named = {"layer.weight": weight}
                output = torch.func.functional_call(self, named, (batch.obs,))
                return (output if self.right else output.squeeze(-1)) - batch.label

            return torch.vmap(one)(self.weights).square().mean() + 0 * self.layer.weight.sum()

    class Wrong(Several):
        def __init__(self, in_features: int):
            super().__init__(in_features)
            self.right = False

    assert fit(Several).metrics["loss"] > 0
    assert "every row with every other" in refused(fit, Wrong)


def test_what_is_mapped_over_rows_or_compiled_runs_as_ever() -> None:
    def loss_of(self: Any, batch: Any, log: Any) -> Tensor:
        named = dict(self.named_parameters())

        def one(obs: Tensor, label: Tensor) -> Tensor:
            return (torch.func.functional_call(self, named, (obs,)) - label).square().mean()

        return torch.vmap(one)(batch.obs, batch.label).mean()

    mapped = fit(with_loss(Values, loss_of)).agent.layer.weight
    plain = fit(with_loss(Values, lambda self, b, log: F.mse_loss(self(b.obs), b.label)))
    assert torch.allclose(mapped, plain.agent.layer.weight)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_step_that_is_watched_has_the_results_of_one_that_is_not(
    dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Attends(nn.Module):
        """With a copy in evaluation mode, where torch has another kernel for attention."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout, batch_first=True)
            self.target = nn.TransformerEncoderLayer(4, 2, 8, dropout, batch_first=True).eval()
            self.target.requires_grad_(False)
            self.last = nn.Linear(4, 1)

        def forward(self, obs: Tensor) -> Tensor:
            tokens = F.pad(obs, (0, 1))[:, None].expand(-1, 3, -1)
            with torch.no_grad():
                aim = self.target(tokens)
            return self.last((self.layer(tokens) + aim)[:, 0])

        def learn(self, replay: Any) -> Tensor:
            batch = next(replay)
            return F.mse_loss(self(batch.obs) + torch.rand(1), batch.label)

    watched = fit(Attends).agent.state_dict()
    monkeypatch.setattr(
        "antelope.launcher.learn.meeting.Meetings.watched", lambda self, step, first: step
    )
    plain = fit(Attends).agent.state_dict()
    assert all(torch.equal(watched[name], plain[name]) for name in plain)
