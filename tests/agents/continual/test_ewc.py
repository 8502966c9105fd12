"""EWC: importances are those of single rows, the pull is towards each task's own weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import ConfigError, ml
from antelope.agents.continual import ewc, ewc_online, importance
from antelope.agents.continual.context import Context
from antelope.agents.continual.ewc import EWC
from antelope.agents.continual.ewc_online import EWCOnline
from antelope.agents.continual.importance import mean_over_rows
from antelope.replay import Batch, Space, Spec

from .course import permuted_digits
from .resuming import Crashing, check_resuming

DIGITS: dict[str, Any] = {
    "tasks": 5,
    "epochs": 1,
    "batch_size": 10,
    "optim": "SGD",
    "lr": 0.1,
    "plot": False,
    "progress": False,
}

# A parameter without a gradient is one of the cases.
pytestmark = pytest.mark.filterwarnings("ignore:No loss reaches")


class Rows:
    """A task's data, as `end_task` meets it."""

    def __init__(self, batch: Batch):
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch)

    def once(self, batch_size: int = 7) -> Iterator[Batch]:
        for start in range(0, len(self.batch), batch_size):
            yield self.batch[start : start + batch_size]


def task(seed: int, *, rows: int = 20, classes: tuple[int, int] = (0, 4)) -> Rows:
    """Three numbers and one of four classes."""
    stream = torch.Generator().manual_seed(seed)
    obs = torch.randn(rows, 3, generator=stream)
    label = torch.randint(*classes, (rows,), generator=stream)
    return Rows(Batch(obs=obs, label=label, task=torch.zeros_like(label), index=label))


def context_of(agent: nn.Module, scenario: str = "class", n: int = 4) -> Context:
    """That of a run with two tasks, of half of the classes each."""
    spec = Spec(obs=Space((3,)), action=Space((n,), dtype=torch.int64, discrete=True))
    classes = [torch.arange(n // 2), torch.arange(n // 2, n)]
    return Context(agent, spec, scenario=scenario, classes=classes, learn=lambda *_: None)


def fisher_of_linear_softmax(weight: Tensor, bias: Tensor, rows: Rows) -> list[Tensor]:
    """In closed form: d log p(y) / d W_kj = (1[y = k] - p_k) x_j."""
    obs, label = rows.batch.obs, rows.batch.label
    error = F.one_hot(label, 4) - (obs @ weight.T + bias).softmax(1)
    return [(error[:, :, None] * obs[:, None]).square().mean(0), error.square().mean(0)]


# ----------------------------------------------------------------------------------- the heart


def check(strategy: EWC | EWCOnline) -> None:
    """After two tasks the penalty and its gradient are the formula's, worked out independently."""
    torch.manual_seed(0)
    agent = nn.Linear(3, 4)
    strategy.context = context_of(agent)
    loss = torch.tensor(2.0)
    assert strategy.after_loss(agent, task(1).batch, loss) is loss
    terms: list[tuple[list[Tensor], list[Tensor]]] = []
    for number in (1, 2):
        anchor = [weight.detach().clone() for weight in agent.parameters()]
        terms.append((fisher_of_linear_softmax(*anchor, task(number)), anchor))
        strategy.end_task(agent, task(number))  # type: ignore[arg-type]
        with torch.no_grad():
            for weight in agent.parameters():
                weight.add_(torch.randn_like(weight))
    if isinstance(strategy, EWCOnline):
        both = zip(terms[0][0], terms[1][0], strict=True)
        terms = [([strategy.gamma * first + second for first, second in both], terms[1][1])]
    total = strategy.after_loss(agent, task(3).batch, loss)
    total.backward()
    expected, pulls = loss, [torch.zeros_like(weight) for weight in agent.parameters()]
    for fishers, anchors in terms:
        for i, weight in enumerate(agent.parameters()):
            moved = weight.detach() - anchors[i]
            expected = expected + strategy.importance * (fishers[i] * moved.square()).sum()
            pulls[i] += 2 * strategy.importance * fishers[i] * moved
    torch.testing.assert_close(total.detach(), expected)
    for weight, pull in zip(agent.parameters(), pulls, strict=True):
        torch.testing.assert_close(weight.grad, pull)


STRATEGIES: dict[str, Callable[[], EWC | EWCOnline]] = {
    "ewc": lambda: EWC(importance=30),
    "ewc_online": lambda: EWCOnline(importance=30, gamma=0.7),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_penalty_and_pull_are_those_of_the_equation(name: str) -> None:
    check(STRATEGIES[name]())


def no_penalty(agent: nn.Module, importance: Any, anchor: Any) -> Tensor:
    return 0 * importance_penalty(agent, importance, anchor)


def all_weights_alike(agent: nn.Module, *_: Any, **__: Any) -> dict[str, Tensor]:
    return {name: torch.ones_like(weight) for name, weight in agent.named_parameters()}


def square_of_the_mean(
    agent: nn.Module, replay: Rows, context: Context, **_: Any
) -> dict[str, Tensor]:
    loss = F.cross_entropy(agent(replay.batch.obs), replay.batch.label)
    gradients = torch.autograd.grad(loss, list(agent.parameters()))
    named = zip(agent.named_parameters(), gradients, strict=True)
    return {name: gradient.square() for (name, _), gradient in named}


def nowhere(agent: nn.Module) -> dict[str, Tensor]:
    return {name: torch.zeros_like(weight) for name, weight in agent.named_parameters()}


importance_penalty = importance.penalty


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize(
    ("part", "broken"),
    [
        ("penalty", no_penalty),
        ("fisher_information", all_weights_alike),
        ("fisher_information", square_of_the_mean),
        ("copied", nowhere),
    ],
)
def test_the_check_objects_to(
    name: str, part: str, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ewc if name == "ewc" else ewc_online, part, broken)
    with pytest.raises(AssertionError):
        check(STRATEGIES[name]())


def test_the_check_objects_to_one_anchor_for_all_tasks() -> None:
    class Forgetful(EWC):
        def end_task(self, agent: nn.Module, replay: Any) -> None:
            super().end_task(agent, replay)
            self.anchors = self.anchors[-1:] * len(self.anchors)

    with pytest.raises(AssertionError):
        check(Forgetful(importance=30))


def test_the_check_objects_to_a_decay_that_is_left_out() -> None:
    class Undecayed(EWCOnline):
        def end_task(self, agent: nn.Module, replay: Any) -> None:
            gamma, self.gamma = self.gamma, 1.0
            super().end_task(agent, replay)
            self.gamma = gamma

    with pytest.raises(AssertionError):
        check(Undecayed(importance=30, gamma=0.7))


# --------------------------------------------------------------------- gradients of single rows


class Convolutional(nn.Module):
    """With BatchNorm, whose statistics are those of training, and Dropout, which is off."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 4, 2)
        self.norm = nn.BatchNorm1d(4)
        self.norm.running_mean.normal_()
        self.last = nn.Linear(8, 4)
        self.drop = nn.Dropout()

    def forward(self, obs: Tensor) -> Tensor:
        return self.last(self.drop(self.norm(self.first(obs[:, None])).relu().flatten(1)))


class InPlace(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 5), nn.ReLU(inplace=True), nn.Linear(5, 4, bias=False))


class Tied(nn.Module):
    """The first layer's weight is used again, outside of the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, obs: Tensor) -> Tensor:
        hidden = self.layer(obs).tanh()
        return self.layer(F.linear(hidden, self.layer.weight.T)) + hidden


class TiedOnce(nn.Module):
    """The layer itself is called once."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, obs: Tensor) -> Tensor:
        hidden = self.layer(obs).tanh()
        return F.linear(F.linear(hidden, self.layer.weight.T), self.layer.weight)


class Flattened(nn.Module):
    """Each row meets the first layer three times, in a batch of two dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(1, 4), nn.Linear(12, 4)

    def forward(self, obs: Tensor) -> Tensor:
        return self.last(self.first(obs.reshape(-1, 1)).tanh().view(len(obs), 12))


class Branch(nn.Module):
    """Asks for a value, which cannot be vectorised."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.layer = nn.Linear(3, 4)

    def forward(self, obs: Tensor) -> Tensor:
        outputs = self.layer(obs)
        return outputs * self.scale if bool(obs.isfinite().all()) else outputs


class PartlyFrozen(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4))
        self[0].weight.requires_grad_(False)


MODELS = [Convolutional, InPlace, Tied, TiedOnce, Flattened, Branch, PartlyFrozen]


def log_likelihood(output: Tensor, batch: Batch) -> Tensor:
    return -F.cross_entropy(output, batch.label, reduction="none")


@pytest.mark.parametrize("of", [torch.square, torch.abs])
@pytest.mark.parametrize("model", MODELS)
def test_every_row_counts_by_itself(
    model: type[nn.Module], of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importance, "_BYTES", 4 * 300)  # A few rows at a time, and a remainder.
    torch.manual_seed(0)
    agent, rows = model(), task(1)
    found = mean_over_rows(agent, rows, log_likelihood, of=of)  # type: ignore[arg-type]
    assert agent.training
    agent.eval()
    learnt = {name: p for name, p in agent.named_parameters() if p.requires_grad}
    expected = {name: torch.zeros_like(weight) for name, weight in learnt.items()}
    for i in range(len(rows)):
        value = log_likelihood(agent(rows.batch.obs[i : i + 1]), rows.batch[i : i + 1])
        for name, gradient in zip(
            learnt, torch.autograd.grad(value.sum(), list(learnt.values())), strict=True
        ):
            expected[name] += of(gradient) / len(rows)
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name])
    assert all(weight.grad is None for weight in agent.parameters())


def test_a_compiled_model_is_looked_at_as_it_was_written() -> None:
    torch.manual_seed(0)
    agent, rows = InPlace(), task(1)
    expected = mean_over_rows(agent, rows, log_likelihood, of=torch.square)  # type: ignore[arg-type]
    agent.compile(backend="eager")
    agent(rows.batch.obs)
    found = mean_over_rows(agent, rows, log_likelihood, of=torch.square)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected)


def test_with_the_task_told_only_its_own_outputs_matter() -> None:
    torch.manual_seed(0)
    agent, strategy = nn.Linear(3, 4), EWC()
    strategy.context = context_of(agent, "task")
    rows = task(1, classes=(0, 2))
    strategy.end_task(agent, rows)  # type: ignore[arg-type]
    fisher = strategy.fishers[0]["weight"]
    assert bool((fisher[2:] == 0).all())
    two = nn.Linear(3, 2)
    two.load_state_dict({name: weight[:2] for name, weight in agent.state_dict().items()})
    error = F.one_hot(rows.batch.label, 2) - two(rows.batch.obs).softmax(1)
    expected = (error[:, :, None] * rows.batch.obs[:, None]).square().mean(0)
    torch.testing.assert_close(fisher[:2], expected.detach())


def test_values_have_the_fisher_information_of_a_gaussian_in_the_units_of_the_targets() -> None:
    agent, strategy = nn.Linear(3, 1), EWC()
    space = Space((1,), stddev=torch.tensor([4.0]))
    strategy.context = Context(
        agent,
        Spec(obs=Space((3,)), action=space),
        scenario="domain",
        classes=[torch.arange(1)],
        learn=lambda *_: None,
    )
    rows = task(1)
    rows.batch["label"] = torch.randn(20, 1)
    strategy.end_task(agent, rows)  # type: ignore[arg-type]
    error = (agent(rows.batch.obs) - rows.batch.label) / 16  # Over the variance.
    expected = (error * rows.batch.obs).square().mean(0, keepdim=True)
    torch.testing.assert_close(strategy.fishers[0]["weight"], expected.detach())


@pytest.mark.parametrize("stddev", [None, torch.tensor([0.0])])
def test_targets_that_do_not_vary_are_taken_in_their_own_units(stddev: Tensor | None) -> None:
    agent, strategy = nn.Linear(3, 1), EWC()
    strategy.context = Context(
        agent,
        Spec(obs=Space((3,)), action=Space((1,), stddev=stddev)),
        scenario="domain",
        classes=[torch.arange(1)],
        learn=lambda *_: None,
    )
    rows = task(1)
    rows.batch["label"] = torch.randn(20, 1)
    strategy.end_task(agent, rows)  # type: ignore[arg-type]
    error = agent(rows.batch.obs) - rows.batch.label
    torch.testing.assert_close(strategy.fishers[0]["bias"], error.square().mean(0).detach())


@pytest.mark.parametrize(
    ("samples", "chosen"),
    [(4, [0, 5, 10, 15]), (3, [0, 7, 14]), (20, [*range(20)]), (99, [*range(20)])],
)
def test_samples_are_spread_over_the_data(samples: int, chosen: list[int]) -> None:
    agent, rows = nn.Linear(3, 4), task(1)
    of = {"of": torch.square}
    found = mean_over_rows(agent, rows, log_likelihood, samples=samples, **of)  # type: ignore[arg-type]
    few = Rows(rows.batch[torch.tensor(chosen)])
    expected = mean_over_rows(agent, few, log_likelihood, **of)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected)


def test_a_task_without_data_adds_nothing() -> None:
    agent, strategy = nn.Linear(3, 4), EWCOnline()
    strategy.context = context_of(agent)
    strategy.end_task(agent, task(1))  # type: ignore[arg-type]
    before = {name: fisher.clone() for name, fisher in strategy.fisher.items()}
    strategy.end_task(agent, task(1, rows=0))  # type: ignore[arg-type]
    torch.testing.assert_close(strategy.fisher, before)


# ------------------------------------------------------------------------------------- in a run


class Net(nn.Module):
    """With all that a strategy might disturb: statistics, a random stream, an unused weight."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.first = nn.Linear(in_features, 32)
        self.norm = nn.BatchNorm1d(32)
        self.drop = nn.Dropout(0.1)
        self.last = nn.Linear(32, out_features)
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, obs: Tensor) -> Tensor:
        return self.last(self.drop(self.norm(self.first(obs.flatten(1))).relu()))


@pytest.mark.parametrize("name", STRATEGIES)
def test_without_strength_it_is_naive_to_the_bit(name: str, tmp_path: Path) -> None:
    settings = DIGITS | {"model": Net, "tasks": 2, "weight_decay": 1e-2}
    runs = {
        key: ml(*words, path=tmp_path / key, **settings)
        for key, words in {
            "naive": ["strategy=naive"],
            "without": [f"strategy={name}", "strategy.importance=0"],
            "with": [f"strategy={name}", "strategy.importance=10"],
        }.items()
    }
    weights = {key: run.agent.state_dict() for key, run in runs.items()}
    for key, weight in weights["naive"].items():
        assert torch.equal(weight, weights["without"][key])
    assert not torch.equal(weights["naive"]["last.weight"], weights["with"]["last.weight"])


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_first_task_is_learnt_as_without_it(name: str, tmp_path: Path) -> None:
    settings = DIGITS | {"model": Net, "tasks": 1}
    naive = ml("strategy=naive", path=tmp_path / "naive", **settings)
    run = ml(f"strategy={name}", "strategy.importance=1e4", path=tmp_path / "run", **settings)
    for key, weight in naive.agent.state_dict().items():
        assert torch.equal(weight, run.agent.state_dict()[key])


@pytest.mark.parametrize("name", STRATEGIES)
def test_less_is_forgotten(name: str, tmp_path: Path) -> None:
    naive, held = (permuted_digits(words, tmp_path) for words in ("naive", f"{name} 10"))
    assert held["forgetting"] < naive["forgetting"] / 2
    assert held["accuracy"] > naive["accuracy"] + 0.01


class Stops(Crashing, Net): ...


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_resumed_run_ends_with_the_same_weights(name: str, tmp_path: Path) -> None:
    check_resuming([f"strategy={name}", "strategy.importance=10"], Stops, tmp_path)


@pytest.mark.parametrize(
    ("strategy", "arguments", "message"),
    [
        (EWC, {"importance": -1}, r"ewc.importance is -1; it must be a number of at least 0"),
        (EWC, {"samples": 0}, r"ewc.samples is 0; it must be a number of at least 1"),
        (EWCOnline, {"gamma": 2}, r"ewc_online.gamma is 2; it must be a number from 0 to 1"),
        (EWCOnline, {"importance": "much"}, r"ewc_online.importance is 'much'"),
        (EWCOnline, {"importance": float("nan")}, r"ewc_online.importance is nan"),
    ],
)
def test_numbers_out_of_bounds_are_refused(
    strategy: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        strategy(**arguments)


# ------------------------------------------------------------------------- the weighted information


@pytest.mark.parametrize("kind", [EWC, EWCOnline])
def test_weighted_each_row_counts_by_the_probability_of_its_label(kind: Any) -> None:
    """In closed form for a linear softmax: p_y ((1[y = k] - p_k) x_j)^2, a mean over rows."""
    torch.manual_seed(0)
    agent, rows = nn.Linear(3, 4), task(1)
    strategy = kind(fisher="weighted")
    strategy.context = context_of(agent)
    strategy.end_task(agent, rows)
    obs, label = rows.batch.obs, rows.batch.label
    p = agent(obs).softmax(1).detach()
    own = p.gather(1, label[:, None])[:, 0]
    error = F.one_hot(label, 4) - p
    expected = (own[:, None, None] * (error[:, :, None] * obs[:, None]).square()).mean(0)
    found = strategy.fishers[0] if kind is EWC else strategy.fisher
    torch.testing.assert_close(found["weight"], expected)
    torch.testing.assert_close(found["bias"], (own[:, None] * error.square()).mean(0))


def test_it_is_weighted_also_where_rows_are_taken_one_by_one() -> None:
    """A layer that is called twice has a gradient of its own for every row."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.last = nn.Linear(3, 3), nn.Linear(3, 4)

        def forward(self, obs: Tensor) -> Tensor:
            return self.last(self.layer(self.layer(obs).tanh()))

    torch.manual_seed(0)
    agent, rows = Twice(), task(1)
    strategy = EWC(fisher="weighted")
    strategy.context = context_of(agent)
    strategy.end_task(agent, rows)  # type: ignore[arg-type]
    expected = torch.zeros(3, 3)
    for obs, label in zip(rows.batch.obs, rows.batch.label, strict=True):
        value = agent(obs).log_softmax(0)[label]
        (gradient,) = torch.autograd.grad(value, agent.layer.weight)
        expected += value.exp().detach() * gradient.square() / len(rows)
    torch.testing.assert_close(strategy.fishers[0]["layer.weight"], expected)


@pytest.mark.parametrize("name", ["ewc", "ewc_online"])
def test_what_has_no_such_information_is_refused(name: str, tmp_path: Path) -> None:
    how: dict[str, Any] = {"plot": False, "progress": False, "path": tmp_path / "run"}
    with pytest.raises(ConfigError, match=rf"{name}\.fisher is 'full'; .* `labels` or `weighted`"):
        ml("tasks=5", f"strategy={name}", "strategy.fisher=full", **how)
    with pytest.raises(ConfigError, match="is for classes, but this run's targets are values"):
        ml("dataset=Diabetes", f"strategy={name}", "strategy.fisher=weighted", **how)
