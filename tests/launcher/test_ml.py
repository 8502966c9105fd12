"""`ml(...)` through the public interface: what may be given, and what comes back."""

from __future__ import annotations

import sys
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from antelope import Run, ml, register


class Linear(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs.flatten(1))


class Learner(Linear):
    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label)


def separable(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two classes that a line separates."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    return x, (x[:, 0] + x[:, 1] > 0).astype(np.int64)


@pytest.fixture
def quick(tmp_path: Path) -> Any:
    """`ml` that writes to a directory of this test, and shows nothing."""

    def run(*words: str, **settings: Any) -> Run:
        return ml(
            *words, **{"path": tmp_path / "run", "plot": False, "progress": False, **settings}
        )

    return run


class TestModel:
    def test_a_class_gets_its_sizes_and_learns(self, quick: Any) -> None:
        assert quick(model=Learner, dataset="Digits").metrics["accuracy"] > 0.9

    def test_an_instance_is_trained_and_given_back(self, quick: Any) -> None:
        model = Learner(4, 2)
        before = model.layer.weight.detach().clone()
        run = quick(model=model, dataset=separable(), lr=0.05)
        assert run.agent is model
        assert not torch.equal(before, model.layer.weight)
        assert run.metrics["accuracy"] > 0.9

    def test_a_plain_module_is_trained_by_cross_entropy(self, quick: Any) -> None:
        assert quick(model=Linear, dataset=separable(), lr=0.05).metrics["accuracy"] > 0.9

    def test_a_function_that_makes_one(self, quick: Any) -> None:
        def make(in_features: int, num_classes: int) -> nn.Module:
            return nn.Sequential(nn.Flatten(), nn.Linear(in_features, num_classes))

        assert quick(model=make, dataset=separable(), lr=0.05).metrics["accuracy"] > 0.9

    def test_lazy_layers_take_shape_before_the_optimiser(self, quick: Any) -> None:
        model = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
        assert quick(model=model, dataset=separable(), lr=0.05).metrics["accuracy"] > 0.9

    def test_by_file_name_and_dotted_path(
        self, quick: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "nets_of_this_test.py").write_text(
            "from torch import nn\n"
            "class Net(nn.Module):\n"
            "    def __init__(self, in_features, out_features, hidden=8):\n"
            "        super().__init__()\n"
            "        self.layer = nn.Sequential(nn.Linear(in_features, hidden),\n"
            "                                   nn.Linear(hidden, out_features))\n"
            "    def forward(self, obs):\n"
            "        return self.layer(obs)\n"
        )
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        configs = []
        for name in ("Net", "nets_of_this_test.py:Net", "nets_of_this_test.Net"):
            run = quick(f"model={name}", "model.hidden=3", dataset=separable(), epochs=1)
            assert run.agent.layer[0].out_features == 3
            configs.append((run.path / "config.yaml").read_text())
        # However the class is named, the configuration names it the same.
        assert len(set(configs)) == 1
        assert "nets_of_this_test.py:Net" in configs[0]

    def test_a_registered_name(self, quick: Any) -> None:
        register("linear-of-this-test")(Linear)
        assert isinstance(quick(model="linear-of-this-test", epochs=1).agent, Linear)

    def test_torchvisions_networks_fit_small_grey_images(self, quick: Any) -> None:
        run = quick(model="resnet18", dataset="Digits", train_steps=2)
        assert run.agent.conv1.in_channels == 1
        assert run.agent.fc.out_features == 10

    def test_sees_evaluation_mode_only_while_evaluated(self, quick: Any) -> None:
        class Watches(Learner):
            modes: set[tuple[str, bool]] = set()  # noqa: RUF012 - shared on purpose.

            def forward(self, obs: Tensor) -> Tensor:
                self.modes.add(("forward", self.training))
                return super().forward(obs)

            def learn(self, replay: Any) -> Tensor:
                self.modes.add(("learn", self.training))
                return super().learn(replay)

        run = quick(model=Watches, dataset=separable(), epochs=2)
        assert ("learn", False) not in Watches.modes
        assert ("forward", False) in Watches.modes
        assert not run.agent.training

    def test_task_hooks_are_called_around_each_task(self, quick: Any) -> None:
        calls: list[Any] = []

        class Hooked(Learner):
            def begin_task(self, task: int) -> None:
                calls.append(("begin", task))

            def end_task(self, replay: Any) -> None:
                calls.append(("end", replay.task, next(replay).task.unique().tolist()))

        quick(model=Hooked, tasks=2, epochs=1)
        assert calls == [("begin", 0), ("end", 0, [0]), ("begin", 1), ("end", 1, [1])]


class TestData:
    def test_float_targets_are_regression(self, quick: Any) -> None:
        x, _ = separable()
        run = quick(model=Linear, dataset=(x, x[:, 0] * 3 + 1), lr=0.05, epochs=30)
        assert run.metrics["r2"] > 0.99
        assert next(run.replay).label.dtype == torch.float32
        assert run.spec.action.shape == (1,)

    def test_embedded_diabetes(self, quick: Any) -> None:
        assert quick(dataset="Diabetes").metrics["r2"] > 0.3

    def test_a_dataset_class_with_a_test_split(self, quick: Any) -> None:
        class Cloud(Dataset):  # type: ignore[type-arg]
            def __init__(self, train: bool = True, n: int = 200):
                self.x, self.y = separable(n if train else 50, seed=int(train))

            def __len__(self) -> int:
                return len(self.y)

            def __getitem__(self, i: int) -> Any:
                return torch.from_numpy(self.x[i]), int(self.y[i])

        run = quick("dataset.n=120", model=Linear, dataset=Cloud, lr=0.05)
        assert len(run.replay) == 120
        assert run.metrics["accuracy"] > 0.9
        assert len(quick(model=Linear, dataset=Cloud(), epochs=1).replay) == 160

    def test_a_folder_of_class_folders(self, quick: Any, tmp_path: Path) -> None:
        from PIL import Image

        for label, level in (("dark", 40), ("light", 200)):
            (tmp_path / "images" / label).mkdir(parents=True)
            for i in range(20):
                image = Image.new("RGB", (8, 8), (level + i, level, level))
                image.save(tmp_path / "images" / label / f"{i}.png")
        run = quick(model=Linear, dataset=str(tmp_path / "images"), lr=0.05)
        assert run.spec.obs.shape == (3, 8, 8)
        assert run.metrics["accuracy"] == 1.0

    def test_a_subset_of_classes(self, quick: Any) -> None:
        run = quick("dataset.subset=[0,5,2]", model=Linear, dataset="Digits")
        assert run.spec.action.shape == (3,)
        assert run.metrics["accuracy"] > 0.95

    def test_a_separate_test_set(self, quick: Any) -> None:
        x, y = separable()
        run = quick(model=Linear, dataset=(x, y), test_dataset=(x, 1 - y), lr=0.05)
        assert len(run.replay) == 300
        assert run.metrics["accuracy"] < 0.1

    def test_augmentation_keeps_the_raw_batch(self, quick: Any) -> None:
        seen = {}

        class Looks(Learner):
            def learn(self, replay: Any) -> Tensor:
                batch = next(replay)
                seen.update(obs=batch.obs, raw=batch.raw)
                return F.cross_entropy(self(batch.raw), batch.label)

        quick("aug.padding=2", model=Looks, aug="RandomCrop", epochs=1)
        assert seen["obs"].shape == seen["raw"].shape
        assert not torch.equal(seen["obs"], seen["raw"])

    def test_torchvision_transforms_by_name(self, quick: Any) -> None:
        run = quick("aug.degrees=20", model=Linear, aug="RandomRotation", epochs=2)
        assert run.metrics["accuracy"] > 0.5


class TestTasks:
    def test_classes_are_learnt_in_sequence_and_forgotten(self, quick: Any) -> None:
        seen: list[set[int]] = [set() for _ in range(5)]

        class Watches(Learner):
            def learn(self, replay: Any) -> Tensor:
                batch = next(replay)
                seen[replay.task] |= set(batch.label.tolist())
                return F.cross_entropy(self(batch.obs), batch.label)

        run = quick(model=Watches, tasks=5, epochs=5, lr=1e-2)
        assert seen == [{0, 1}, {2, 3}, {4, 5}, {6, 7}, {8, 9}]
        matrix = run.accuracy_matrix
        assert matrix.shape == (5, 5)
        assert (matrix.diagonal() > 0.8).all()
        assert matrix[4, 0] < 0.5  # Nothing was done against forgetting.
        assert matrix[0, 1] == 0.0  # Nothing was learnt before its time.
        assert run.metrics["accuracy"] == pytest.approx(matrix[4].mean())

    def test_a_list_of_data_sets_is_a_sequence(self, quick: Any) -> None:
        x, y = separable()
        run = quick(model=Linear, dataset=[(x, y), (x, 1 - y)], lr=0.05)
        assert run.accuracy_matrix[1, 1] > 0.9
        assert run.accuracy_matrix[1, 0] < 0.1


class TestOptimisation:
    def test_dicts_with_targets_equal_words(self, quick: Any) -> None:
        from torch.optim import SGD
        from torch.optim.lr_scheduler import CosineAnnealingLR

        code = quick(
            model=Learner,
            optim={"_target_": SGD, "lr": 1e-2},
            scheduler={"_target_": CosineAnnealingLR, "T_max": 4},
            epochs=2,
        )
        config = (code.path / "config.yaml").read_text()
        words = ["scheduler.T_max=4", "optim.lr=1e-2", "scheduler=CosineAnnealingLR", "optim=SGD"]
        console = quick(*words, model=Learner, epochs=2)
        assert (console.path / "config.yaml").read_text() == config
        assert torch.equal(code.agent.layer.weight, console.agent.layer.weight)
        # Cosine annealing of 1e-2 in the second of 4 epochs: 1e-2 (1 + cos(pi / 4)) / 2.
        assert console.history[-2]["lr"] == pytest.approx(1e-2 * (1 + np.cos(np.pi / 4)) / 2)

    def test_an_optimiser_instance(self, quick: Any) -> None:
        model = Linear(4, 2)
        optim = torch.optim.SGD(model.parameters(), lr=0.1)
        run = quick(model=model, optim=optim, dataset=separable())
        assert run.metrics["accuracy"] > 0.9
        assert next(row["lr"] for row in run.history if row["mode"] == "train") == 0.1

    def test_shorthands_reach_the_optimiser(self, quick: Any) -> None:
        seen = {}

        class Looks(Learner):
            pass

        def remember(optimizer: Any, *_: Any) -> None:
            seen.update(optimizer.param_groups[0])

        from torch.optim.optimizer import register_optimizer_step_pre_hook

        handle = register_optimizer_step_pre_hook(remember)
        try:
            quick(model=Looks, lr=0.02, weight_decay=0.3, epochs=1)
        finally:
            handle.remove()
        assert (seen["lr"], seen["weight_decay"]) == (0.02, 0.3)

    def test_lr_decay_reaches_zero_once(self, quick: Any) -> None:
        with pytest.warns(UserWarning, match="ends long before the run"):
            run = quick(model=Learner, lr=1.0, lr_decay_epochs=2, epochs=4, log_every=1)
        rates = [row["lr"] for row in run.history if row["mode"] == "train"]
        assert rates[: len(rates) // 2] == sorted(rates[: len(rates) // 2], reverse=True)
        assert max(rates[len(rates) // 2 :]) == pytest.approx(0.0)

    def test_clipping_bounds_the_step(self, quick: Any) -> None:
        model = Learner(4, 2)
        before = model.layer.weight.detach().clone()
        quick("optim.lr=1.0", model=model, optim="SGD", clip_grad=1e-3, train_steps=1,
              dataset=separable())  # fmt: skip
        assert (model.layer.weight - before).norm() <= 1.001e-3

    def test_the_average_is_what_is_evaluated_and_given_back(self, quick: Any) -> None:
        # decay 1 keeps the initial weights for ever, whatever is learnt.
        model = Learner(4, 2)
        before = model.layer.weight.detach().clone()
        run = quick(model=model, dataset=separable(), ema=1.0, lr=0.1)
        assert torch.equal(run.agent.layer.weight, before)

    def test_half_precision_learns(self, quick: Any) -> None:
        assert quick(model=Learner, precision="bf16").metrics["accuracy"] > 0.9

    def test_early_stopping_ends_the_task(self, quick: Any) -> None:
        class Stuck(Learner):
            def learn(self, replay: Any) -> None:
                next(replay)

        run = quick("early_stopping.patience=2", model=Stuck, epochs=50)
        evaluations = [row for row in run.history if row["mode"] == "eval"]
        assert len(evaluations) == 3  # The first is the best, two are waited for.

    @pytest.mark.filterwarnings("ignore:No loss reaches")
    def test_a_plateau_scheduler_is_told_the_evaluation(self, quick: Any) -> None:
        class Stuck(Learner):
            def learn(self, replay: Any) -> Tensor:
                next(replay)
                return self.layer.weight.sum() * 0

        run = quick("scheduler.patience=0", "scheduler.factor=0.5", model=Stuck, lr=1e-3,
                    weight_decay=0.0, scheduler="ReduceLROnPlateau", epochs=3)  # fmt: skip
        rates = [row["lr"] for row in run.history if row["mode"] == "train"]
        assert rates[-1] < 1e-3


class TestRun:
    def test_what_is_written_is_what_is_given_back(self, quick: Any) -> None:
        import json

        from antelope.launcher.record.csv_file import read_csv

        run = quick(model=Learner, epochs=2)
        rows = read_csv(run.path / "train.csv") + read_csv(run.path / "eval.csv")
        assert sorted(map(str, rows)) == sorted(map(str, run.history))
        status = json.loads((run.path / "status.json").read_text())
        assert status["status"] == "finished"
        assert status["metrics"] == run.metrics
        assert run.spec.obs.shape == (1, 8, 8)
        assert prod(run.spec.action.shape) == 10
        assert len(run.replay) == 1438

    def test_the_same_seed_gives_the_same_weights(self, quick: Any) -> None:
        first, again, other = (quick(model=Learner, epochs=1, seed=s) for s in (1, 1, 2))
        assert torch.equal(first.agent.layer.weight, again.agent.layer.weight)
        assert not torch.equal(first.agent.layer.weight, other.agent.layer.weight)

    def test_user_scalars_are_means_over_the_rows_steps(self, quick: Any) -> None:
        class Counts(Learner):
            count = 0

            def learn(self, replay: Any, log: Any) -> Tensor:
                self.count += 1
                log.count = self.count
                log["a/b"] = torch.tensor(2.0)
                return super().learn(replay)

        run = quick(model=Counts, train_steps=20, log_every=10)
        train = [row for row in run.history if row["mode"] == "train"]
        assert [row["count"] for row in train] == [5.5, 15.5]
        assert train[0]["a/b"] == 2.0

    def test_a_model_that_never_asks_for_a_batch_still_ends(self, quick: Any) -> None:
        class Lazy(Learner):
            def learn(self, replay: Any) -> None:
                return None

        assert quick(model=Lazy, epochs=2).history[-1]["step"] == 90

    def test_default_directory_and_pictures(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        run = ml(model=Learner, experiment="mine", seed=3, epochs=1, progress=False)
        assert run.path == tmp_path / "runs" / "mine" / "Learner" / "Digits" / "3"
        assert (run.path / "plots" / "learning_curve.png").stat().st_size > 5000

    def test_tensorboard_gets_the_same_scalars(self, quick: Any) -> None:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tensorboard's own imports.
            pytest.importorskip("tensorboard")
            run = quick(model=Learner, epochs=1, loggers=["csv", "tensorboard"])
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

            events = EventAccumulator(str(run.path / "tensorboard")).Reload()
        value = events.Scalars("eval/accuracy")[-1].value
        assert value == pytest.approx(run.metrics["accuracy"])


class TestEnvironments:
    def test_a_random_agent_steps_stores_and_is_evaluated(self, quick: Any) -> None:
        run = quick(env="CartPole-v1", agent="Random", train_steps=3000, eval_every=1000)
        # A random policy keeps the pole up for about 22 steps (Barto et al., 1983, setting).
        assert 12 < run.metrics["return"] < 40
        assert [row["step"] for row in run.history if row["mode"] == "eval"] == [1000, 2000, 3000]
        batch = run.replay.sample(64)
        assert batch.obs.shape == batch.next_obs.shape == (64, 4)
        # The pole's and the cart's positions move by velocity times 0.02 s.
        moved = batch.next_obs[:, 0] - batch.obs[:, 0]
        assert torch.allclose(moved, 0.02 * batch.obs[:, 1], atol=1e-5)
        expected = torch.where(batch.terminated, 0.0, 0.99)
        assert torch.allclose(batch.discount, expected)

    def test_a_users_own_learner_meets_its_own_transitions(self, quick: Any) -> None:
        class Agent(nn.Module):
            def __init__(self, obs_dim: int, num_actions: int):
                super().__init__()
                self.q = nn.Linear(obs_dim, num_actions)
                self.batches = 0

            def act(self, obs: Tensor) -> Any:
                return self.q(obs).argmax(-1), {"value": self.q(obs).amax(-1)}

            def learn(self, replay: Any, log: Any) -> Tensor:
                batch = next(replay)
                self.batches += 1
                assert batch.value.shape == (128,)
                q = self.q(batch.obs).gather(1, batch.action[:, None])[:, 0]
                with torch.no_grad():
                    target = batch.reward + batch.discount * self.q(batch.next_obs).amax(-1)
                return F.mse_loss(q, target)

        run = quick(model=Agent, env="CartPole-v1", num_envs=2, train_steps=400, seed_steps=100,
                    learn_every=2, eval_episodes=1)  # fmt: skip
        assert run.agent.batches == 151  # At steps 100, 102, ..., 400.

    def test_a_sequence_of_environments(self, quick: Any) -> None:
        run = quick(env=["CartPole-v1", "CartPole-v1"], agent="Random", train_steps=200,
                    eval_episodes=2)  # fmt: skip
        assert run.accuracy_matrix.shape == (2, 2)
        assert set(run.replay.sample(200).task.tolist()) == {1}


def test_one_thread_in_small_environments_and_as_many_as_before_afterwards(
    monkeypatch: pytest.MonkeyPatch, workdir: Path
) -> None:
    seen: list[int] = []

    class Model(nn.Module):
        def act(self, obs: Tensor) -> Tensor:
            seen.append(torch.get_num_threads())
            return torch.zeros(len(obs), dtype=torch.int64)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        quiet: dict[str, Any] = {"train_steps": 3, "eval_episodes": 1, "plot": False}
        ml(model=Model, env="CartPole-v1", progress=False, **quiet)
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
        seen.clear()
        ml(model=Model, env="CartPole-v1", threads=2, progress=False, **quiet)
        assert set(seen) == {2}
    finally:
        torch.set_num_threads(before)
