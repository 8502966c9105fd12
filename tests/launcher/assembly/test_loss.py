"""`loss=`: what trains a module without `learn`, found unfit before training."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import ConfigError, ml

QUICK: dict[str, Any] = {"plot": False, "progress": False, "train_steps": 20}


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Net(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.last = nn.Linear(in_features, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.last(obs.flatten(1))


def learning_by(loss: Any, base: type[nn.Module] = Net) -> type[nn.Module]:
    """A class of models whose own `learn` returns this loss."""

    class Learns(base):  # type: ignore[valid-type, misc]
        def learn(self, replay: Any) -> Tensor:
            batch = next(replay)
            return loss(self(batch.obs), batch.label)

    return Learns


def rows(counts: list[int], features: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Inputs float32 `[N, features]`, and a class for each, in no order."""
    drawn = np.random.default_rng(0)
    label = drawn.permutation(np.repeat(np.arange(len(counts)), counts))
    return drawn.normal(size=(len(label), features)).astype(np.float32), label


DATA = rows([60, 30, 10])
HELD_OUT = rows([5, 5, 5])
VALUES = DATA[0], (DATA[0][:, :2] * [30, 1] + 5).astype(np.float32)


def trained(*words: str, data: Any = DATA, test: Any = HELD_OUT, **settings: Any) -> Any:
    return ml(*words, **QUICK | {"dataset": data, "test_dataset": test, "model": Net} | settings)


def same_weights(one: Any, other: Any) -> bool:
    states = one.agent.state_dict(), other.agent.state_dict()
    return all(map(torch.equal, states[0].values(), states[1].values()))


def smoothed(output: Tensor, label: Tensor) -> Tensor:
    return F.cross_entropy(output, label, label_smoothing=0.1)


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["loss=CrossEntropyLoss", "loss.label_smoothing=0.1"], {}),
        (["loss=cross_entropy", "loss.label_smoothing=0.1"], {}),
        ([], {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)}),
        ([], {"loss": {"_target_": nn.CrossEntropyLoss, "label_smoothing": 0.1}}),
        ([], {"loss": smoothed}),
        ([], {"loss": functools.partial(F.cross_entropy, label_smoothing=0.1)}),
    ],
)
def test_a_loss_trains_to_the_bit_like_a_learn_that_returns_it(words: Any, settings: Any) -> None:
    expected = trained(model=learning_by(smoothed), path="own")
    run = trained(*words, **settings, path="by loss")
    assert same_weights(run, expected)
    with torch.no_grad():
        x = torch.from_numpy(HELD_OUT[0])
        output = run.agent((x - run.spec.obs.mean) / run.spec.obs.stddev)
    by_hand = float(smoothed(output, torch.from_numpy(HELD_OUT[1])))
    assert run.metrics["loss"] == pytest.approx(by_hand, abs=1e-5)


def test_a_loss_in_a_file_is_named_in_a_console() -> None:
    Path("losses.py").write_text(
        "import torch.nn.functional as F\n\n\n"
        "def smoothed(output, label, amount=0.0):\n"
        "    return F.cross_entropy(output, label, label_smoothing=amount)\n"
    )
    expected = trained(model=learning_by(smoothed), path="own")
    run = trained("loss=losses.py:smoothed", "loss.amount=0.1", path="by loss")
    assert same_weights(run, expected)
    assert "losses.py:smoothed" in (run.path / "config.yaml").read_text()


def test_balanced_weights_are_rows_by_classes_times_count() -> None:
    weight = torch.tensor([100 / (3 * 60), 100 / (3 * 30), 100 / (3 * 10)])
    expected = trained(model=learning_by(nn.CrossEntropyLoss(weight)), path="own")
    run = trained("loss=CrossEntropyLoss", "loss.weight=balanced", path="by loss")
    assert same_weights(run, expected)
    listed = trained(f"loss.weight={weight.tolist()}", "loss=CrossEntropyLoss", path="listed")
    assert same_weights(run, listed)


def test_balanced_weights_count_the_rows_of_all_tasks_and_no_validation_rows() -> None:
    weights: list[Tensor] = []

    class Kept(nn.CrossEntropyLoss):
        def __init__(self, weight: Tensor):
            super().__init__(weight)
            weights.append(weight)

    trained("loss.weight=balanced", "classes_per_task=[2,1]", "validation=0.2", loss=Kept)
    assert torch.allclose(weights[0], 80 / (3 * torch.tensor([48.0, 24, 8])))


def test_values_reach_a_loss_in_the_units_of_the_targets() -> None:
    run = trained("loss=L1Loss", data=VALUES, test=VALUES, path="by loss")
    expected = trained(model=learning_by(F.l1_loss), data=VALUES, test=VALUES, path="own")
    assert same_weights(run, expected)
    assert run.metrics["loss"] == pytest.approx(run.metrics["mae"], rel=1e-5)


def test_a_poisson_loss_that_is_already_constructed_says_that_outputs_are_no_logarithms() -> None:
    class Rates(Net):
        def forward(self, obs: Tensor) -> Tensor:
            return super().forward(obs).exp()

    data: dict[str, Any] = {"data": (DATA[0], np.abs(VALUES[1])), "test": None, "model": Rates}
    assert trained(loss=nn.PoissonNLLLoss(log_input=False), **data).metrics["loss"] < np.inf
    with pytest.raises(ConfigError, match="takes outputs as logarithms"):
        trained(loss=nn.PoissonNLLLoss(), **data)


def test_the_default_network_and_strategies_learn_by_the_loss() -> None:
    calls: list[int] = []

    def loss(output: Tensor, label: Tensor) -> Tensor:
        calls.append(len(label))
        return F.cross_entropy(output, label)

    usual = trained(model=None, path="usual")
    run = trained(model=None, loss=loss, path="by loss")
    assert same_weights(run, usual)
    assert len(calls) > 20
    calls.clear()
    trained("classes_per_task=[2,1]", "strategy=er", loss=loss)
    assert max(calls[:-2]) == 64  # A batch, and as many rows from the memory.


def test_a_run_with_a_loss_resumes_to_the_bit() -> None:
    words = ["loss=CrossEntropyLoss", "loss.weight=balanced"]
    whole = trained(*words, path="whole")
    trained(*words, path="parts", train_steps=8)
    assert same_weights(trained(*words, path="parts", resume=True), whole)


class WithSoftmax(Net):
    def forward(self, obs: Tensor) -> Tensor:
        return super().forward(obs).log_softmax(1)


def test_log_probabilities_are_learnt_by_their_likelihood() -> None:
    run = trained("loss=NLLLoss", model=WithSoftmax, path="nll")
    other = trained(model=learning_by(F.nll_loss, WithSoftmax), path="own")
    assert same_weights(run, other)


def wrong_size(output: Tensor, label: Tensor) -> Tensor:
    return (output - label).sum()


def hard(output: Tensor, label: Tensor) -> Tensor:
    return (output.argmax(1) != label).float().mean()


def in_place(output: Tensor, label: Tensor) -> Tensor:
    return F.cross_entropy(output, label.fill_(0))


def label_first(y_true: Tensor, y_pred: Tensor) -> Tensor:
    return ((y_true - y_pred) * y_true).square().mean()


class LabelFirst(nn.Module):
    def forward(self, target: Tensor, prediction: Tensor) -> Tensor:
        return label_first(target, prediction)


class Counting(nn.CrossEntropyLoss):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, output: Tensor, label: Tensor) -> Tensor:
        self.seen += len(label)
        return super().forward(output, label)


class Scaled(nn.CrossEntropyLoss):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


@pytest.mark.parametrize(
    ("words", "settings", "says"),
    [
        (["loss=sparse_categorical_crossentropy"], {}, ["Keras", "use loss=CrossEntropyLoss"]),
        (["loss=CrossEntropyLos"], {}, ["No loss `CrossEntropyLos`", "CrossEntropyLoss"]),
        (
            ["loss=CrossEntropyLoss", "loss.smoothing=1"],
            {},
            ["no parameter `smoothing`", "label_smoothing"],
        ),
        (["loss=cross_entropy", "loss.smoothing=1"], {}, ["no parameter `smoothing`"]),
        (["loss.label_smoothing=0.1"], {}, ["`loss` has arguments", "but no name"]),
        (["loss=CrossEntropyLoss", "loss.weight=[1,2]"], {}, ["shape [2]", "3 classes"]),
        (["loss=CrossEntropyLoss", "loss.weight=even"], {}, ["weight=balanced", "3 numbers"]),
        (["loss=CrossEntropyLoss", "loss.weight=[1,2,-3]"], {}, ["negative"]),
        (["loss=CrossEntropyLoss", "loss.reduction=none"], {}, ["shape [2]", 'reduction="mean"']),
        (["loss=MSELoss"], {}, ["MSELoss is for values", "one class per row", "floats"]),
        ([], {"loss": F.mse_loss}, ["mse_loss is for values", "one class per row"]),
        (
            [],
            {"loss": functools.partial(F.mse_loss, reduction="sum")},
            ["mse_loss is for values", "one class per row"],
        ),
        (["loss=BCEWithLogitsLoss"], {}, ["several labels", "two for yes and no"]),
        (["loss=BCELoss"], {}, ["probabilities", "CrossEntropyLoss", "sigmoid"]),
        (["loss=NLLLoss"], {}, ["log-probabilities", "CrossEntropyLoss", "log_softmax"]),
        (["loss=CTCLoss"], {}, ["Write learn(self, replay)"]),
        (["loss=TripletMarginLoss"], {}, ["Write learn(self, replay)"]),
        (
            ["loss=CrossEntropyLoss"],
            {"data": VALUES, "test": VALUES},
            ["one class per row", "targets of arrays are values", "MSELoss"],
        ),
        (
            ["loss=MSELoss", "loss.weight=balanced"],
            {"data": VALUES, "test": VALUES},
            ["no parameter `weight`"],
        ),
        (["loss=PoissonNLLLoss"], {"data": VALUES, "test": VALUES}, ["loss.log_input=false"]),
        ([], {"loss": wrong_size}, ["loss=wrong_size raised RuntimeError", "float32 [2, 3]"]),
        ([], {"loss": hard}, ["no gradient", "argmax"]),
        ([], {"loss": lambda output, label: 1.0}, ["returned a float (1.0)"]),
        ([], {"loss": lambda output, label: output.mean() / 0}, ["inf", "before any training"]),
        ([], {"loss": in_place}, ["changes the labels in place"]),
        ([], {"loss": label_first}, ["label first (y_true, y_pred)", "Exchange the two"]),
        ([], {"loss": LabelFirst}, ["label first (target, prediction)", "Exchange the two"]),
        ([], {"loss": Counting()}, ["changes its own buffers"]),
        ([], {"loss": Scaled}, ["parameters of its own (scale)"]),
        (["loss.weight=balanced"], {"loss": nn.CrossEntropyLoss()}, ["already constructed"]),
        (["loss=MSELoss"], {"model": learning_by(smoothed)}, ["no effect", "Learns.learn"]),
        (["loss=MSELoss", "rl=true"], {"model": None}, ["no effect with rl=true"]),
        (
            ["loss=CrossEntropyLoss", "strategy=er_ace", "classes_per_task=[2,1]"],
            {},
            ["no effect with strategy=er_ace"],
        ),
        (
            [
                *("loss=CrossEntropyLoss", "loss.label_smoothing=0.1"),
                *("scenario=task", "classes_per_task=[2,1]"),
            ],
            {},
            ["scenario=task hides", "label_smoothing"],
        ),
    ],
)
def test_a_loss_that_does_not_fit_is_refused_before_training(
    words: list[str], settings: dict[str, Any], says: list[str]
) -> None:
    with pytest.raises(ConfigError) as raised:
        trained(*words, **settings)
    for part in says:
        assert part in str(raised.value)
    assert not Path("runs").exists()


def test_an_environment_has_no_targets_for_a_loss() -> None:
    with pytest.raises(ConfigError, match=r"write\s+learn\(self, replay\)"):
        ml("loss=MSELoss", env="CartPole-v1", **QUICK)


def test_with_the_task_known_the_held_out_loss_is_of_its_own_classes() -> None:
    words = ["classes_per_task=[2,1]", "scenario=task"]
    run = trained(*words, "loss=CrossEntropyLoss", path="by loss")
    usual = trained(*words, path="usual")
    assert run.metrics["task_il_loss"] == pytest.approx(usual.metrics["task_il_loss"], abs=1e-5)
