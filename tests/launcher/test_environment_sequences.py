"""Environments learnt one after another: what is drawn, measured, named, and kept by strategies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from antelope import ConfigError, Run, ml
from antelope.agents.continual import EWC, MAS, Cumulative, LwF
from antelope.launcher.metrics.bwt import bwt
from antelope.launcher.metrics.forgetting import forgetting
from antelope.launcher.metrics.fwt import fwt
from antelope.launcher.metrics.learning_accuracy import learning_accuracy
from antelope.launcher.record.csv_file import read_csv

from ..envs.test_copies import KINDS
from ..envs.toys import check_diary

SHORT: dict[str, Any] = {
    "train_steps": 60,
    "seed_steps": 0,
    "eval_episodes": 2,
    "batch_size": 16,
    "plot": False,
    "progress": False,
}


class Bandit(gymnasium.Env[np.ndarray, Any]):
    """One step; the reward is the task's payment for the arm."""

    observation_space = spaces.Box(-9.0, 9.0, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, pays: tuple[float, float] = (1.0, 0.0), cue: float = 1.0) -> None:
        self.pays, self.cue = pays, cue

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, Any]:
        super().reset(seed=seed)
        drawn = self.np_random.normal(size=2)
        return np.array([self.cue, *drawn], np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, Any]:
        return np.zeros(3, np.float32), self.pays[int(action)], True, False, {}


class Q(nn.Module):
    """A linear Q-network that keeps the tasks of its batches."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)
        self.met: list[list[int]] = []
        self.sizes: list[int] = []

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs)

    def learn(self, replay: Any, log: Any) -> Tensor:
        self.sizes.append(len(replay))
        batch = next(replay)
        self.met.append(sorted(set(batch.task.tolist())))
        q = self(batch.obs).gather(1, batch.action[:, None]).squeeze(1)
        return F.mse_loss(q, batch.reward)


@pytest.fixture(autouse=True)
def _here(workdir: Path) -> None:
    """Every test in a folder of its own."""


def run(*words: str, **settings: Any) -> Run:
    return ml(*words, **{"env": [Bandit, Bandit], "model": Q, **SHORT, **settings})


def weights(finished: Run) -> Tensor:
    return torch.cat([p.detach().flatten() for p in finished.agent.parameters()])


# -------------------------------------------------------------------------------- what is drawn


@pytest.mark.parametrize("strategy", [None, "naive", "ewc", "si"])
def test_batches_are_of_the_current_task(strategy: str | None) -> None:
    finished = run(strategy=strategy)
    assert finished.agent.met == [[0]] * 60 + [[1]] * 60
    assert finished.agent.sizes == [*range(1, 61)] * 2  # What can be drawn is counted so too.
    assert finished.replay.sample(40).task.unique().tolist() == [1]


def test_no_strategy_is_naive_to_the_bit() -> None:
    assert torch.equal(weights(run(path="a")), weights(run(strategy="naive", path="b")))


def test_cumulative_draws_from_all_tasks_so_far() -> None:
    finished = run(strategy="cumulative", env=[Bandit] * 3)
    assert finished.agent.met[:60] == [[0]] * 60
    assert max(finished.agent.met[60:120]) == [0, 1]
    drawn = finished.replay.sample(3000).task.bincount(minlength=3)
    assert bool((drawn > 800).all())
    assert sum(len(batch) for batch in finished.replay.once()) == len(finished.replay) == 180


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"nstep": 3}, {"replay.prioritized": True}], ids=str)
def test_whatever_the_copies_do_the_batches_are_right(kind: str, options: dict[str, Any]) -> None:
    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))
            self.met: set[tuple[int, ...]] = set()

        def act(self, obs: Tensor) -> Tensor:
            return torch.zeros(len(obs), dtype=torch.long)

        def learn(self, replay: Any) -> Tensor:
            if len(replay) < 8:
                return None  # type: ignore[return-value]
            batch = next(replay)
            # Steps that a task's end has cut off are truncated early.
            if "nstep" not in options:
                inside = ~(batch.truncated & (batch.obs[:, 1] + 1 != 1 + batch.obs[:, 0] % 5))
                check_diary(batch[inside])
            self.met.add((replay.task, *batch.task.unique().tolist()))
            if replay.prioritized:
                replay.update_priorities(batch.index, torch.rand(len(batch)))
            return (batch.obs / 1e6 @ self.weight).square().mean()

    words = [f"{key}={value}" for key, value in options.items()]
    kept = {**KINDS[kind], "capacity": 150}  # Smaller than a task: the ring goes round.
    finished = run(*words, model=Looks, **{**kept, "env": [kept["env"]] * 3}, train_steps=120)
    assert finished.agent.met == {(0, 0), (1, 1), (2, 2)}


def test_every_task_waits_for_its_first_steps() -> None:
    finished = run(seed_steps=20, learn_every=4)
    assert finished.agent.sizes == [*range(20, 61, 4)] * 2


def test_tasks_that_are_over_before_anything_is_learnt_are_told_of() -> None:
    with pytest.warns(
        UserWarning, match="Nothing is learnt: .* seed_steps=70, but tasks have 60 steps"
    ):
        assert run(seed_steps=70).agent.sizes == []


def test_a_rollout_is_of_one_task() -> None:
    class Rolls(Q):
        def learn(self, replay: Any, log: Any) -> Tensor:
            if replay.new_steps < 16:
                return None  # type: ignore[return-value]
            rollout = replay.rollout()
            self.met.append(sorted(set(rollout.task.flatten().tolist())))
            return self(rollout.obs).square().mean()

    finished = run(model=Rolls, strategy="si")
    assert finished.agent.met == [[0]] * 3 + [[1]] * 3


def test_other_tasks_than_the_newest_cannot_be_given() -> None:
    class First:
        def begin_task(self, agent: Any, replay: Any) -> None:
            replay.use_tasks([0])

    with pytest.raises(ConfigError, match=r"use_tasks\(\[0\]\) in task 1: .* range\(2\)"):
        run(strategy=First)


def test_exploration_begins_again_with_every_task() -> None:
    finished = ml(
        "model.hidden=[4]", "model.explore_steps=40", env=[Bandit, Bandit], agent="DQN", **SHORT
    )  # fmt: skip
    assert finished.agent.epsilon.taken == 60


# ------------------------------------------------------------------------------ what is measured


def test_metrics_are_those_of_the_matrix_in_units_of_return() -> None:
    tasks = [Bandit(), Bandit((0.0, 5.0), 0.0), Bandit((-2.0, -1.0), -1.0)]
    pays = [{"_target_": Bandit, "pays": t.pays, "cue": t.cue} for t in tasks]
    played: list[list[int]] = []

    class Untrained(Q):
        def begin_task(self, task: int) -> None:
            played.append([task])

    finished = run(env=pays, model=Untrained, eval_future=True, lr=0.1)
    matrix = finished.accuracy_matrix
    assert matrix.shape == (3, 3)
    assert np.isfinite(matrix).all()
    assert set(finished.metrics) >= {"return", "learning_return", "forgetting", "bwt", "fwt"}
    assert "learning_accuracy" not in finished.metrics
    assert finished.metrics["return"] == pytest.approx(matrix[-1].mean())
    assert finished.metrics["learning_return"] == learning_accuracy(matrix)
    assert finished.metrics["forgetting"] == forgetting(matrix)
    assert finished.metrics["bwt"] == bwt(matrix)
    torch.manual_seed(0)
    # The untrained model's returns: of every episode the payment for the arm it prefers.
    from antelope.launcher.record.checkpoint import Checkpoints

    (state, _) = Checkpoints(finished.path / "checkpoints").newest()
    assert state is not None
    baseline = state["progress"]["baseline"]
    assert len(baseline) == 3
    assert finished.metrics["fwt"] == fwt(matrix, baseline)
    rows = read_csv(finished.path / "eval.csv")
    assert rows[-1]["learning_return"] == finished.metrics["learning_return"]
    assert rows[-1]["return/task_1"] == matrix[-1, 1]
    header = (finished.path / "eval.csv").read_text().split("\n")[0].split(",")
    after = header.index("learning_return")
    assert header[after : after + 4] == ["learning_return", "forgetting", "bwt", "fwt"]


def test_forward_transfer_compares_with_the_untrained_agent() -> None:
    class Prefers(Q):
        """Takes arm 0 until it has learnt anything, and arm 1 from then on."""

        def forward(self, obs: Tensor) -> Tensor:
            first = 0.0 if self.met else 1.0
            return self.layer(obs) * 0 + torch.tensor([first, 0.5])

    pays = {"_target_": Bandit, "pays": [1.0, 4.0]}
    finished = run(env=[pays, pays], model=Prefers)
    assert finished.metrics["fwt"] == 3.0
    assert finished.metrics["learning_return"] == 4.0
    # Seen, and the next one; no later ones.
    three = run(env=[pays] * 4, model=Prefers, path="four").accuracy_matrix
    assert np.array_equal(np.isnan(three), ~np.tri(4, 4, 1, dtype=bool))


def test_a_single_environment_has_no_metrics_of_a_sequence() -> None:
    assert not {"learning_return", "fwt"} & run(env=Bandit).metrics.keys()


# ------------------------------------------------------------------------------ what is it called


def test_tasks_are_named_by_what_tells_them_apart(capsys: Any) -> None:
    pays = [{"_target_": Bandit, "cue": cue} for cue in (0.0, 1.0, 1.0)]
    finished = run(env=[*pays, "CartPole-v1"][:3], progress=True, plot=True)
    names = ["Bandit(cue=0.0)", "Bandit(cue=1.0)", "Bandit(cue=1.0) (2)"]
    assert [task["name"] for task in finished.tasks] == names
    assert [
        t["name"] for t in json.loads((finished.path / "status.json").read_text())["tasks"]
    ] == names
    said = capsys.readouterr().out
    assert f"{', '.join(names)}, 1 in parallel" in said
    assert "task 1 of 3, Bandit(cue=0.0), learnt in" in said
    picture = (finished.path / "plots" / "return_matrix.svg").read_text()
    assert "1 Bandit(cue=0.0)" in picture
    assert "return on each task after each" in picture
    assert not (finished.path / "plots" / "accuracy_matrix.svg").exists()
    assert "3 Bandit(cue=1.0) (2)" in (finished.path / "plots" / "tasks.svg").read_text()


def test_a_long_sequence_has_a_directory_that_can_be_made() -> None:
    class AnEnvironmentOfManyWordsWithWhichItIsCalled(Bandit):
        pass

    finished = run(
        env=[AnEnvironmentOfManyWordsWithWhichItIsCalled] * 9, train_steps=2, batch_size=2
    )
    assert len(finished.path.parent.name) < 130
    assert "and-8-more" in finished.path.parent.name


# ------------------------------------------------------------------------------------ strategies


@pytest.mark.parametrize("strategy", ["ewc", "ewc_online", "si", "mas", "lwf"])
def test_a_strategy_holds_the_first_task_against_the_second(strategy: str) -> None:
    """The arms' pays are swapped, and what is seen is the same: nothing else can keep the first."""
    env = [{"_target_": Bandit, "pays": p} for p in ([1.0, 0.0], [0.0, 1.0])]
    settings: dict[str, Any] = {"env": env, "lr": 0.03, "train_steps": 150}
    plain = run(path="plain", **settings)
    held = run(f"strategy.importance={1e3}", strategy=strategy, path="held", **settings)
    assert plain.metrics["forgetting"] == 1.0
    assert held.metrics["forgetting"] == 0.0
    assert held.tasks[-1]["memory_bytes"] > 0


def test_fisher_information_of_q_values_is_that_of_gaussians() -> None:
    """Q_k = w_k x + b_k: of each row dQ_k / dw_ki = x_i, and dQ_k / db_k = 1."""
    ewc = EWC()
    finished = run(strategy=ewc)
    obs = torch.cat([batch.obs for batch in finished.replay.once()])
    assert len(obs) == 60
    wanted = obs.square().mean(0).expand(2, -1)
    assert torch.allclose(ewc.fishers[1]["layer.weight"], wanted, rtol=1e-5)
    assert torch.allclose(ewc.fishers[1]["layer.bias"], torch.ones(2))
    half = EWC(samples=30)
    assert torch.allclose(
        run_with(half, "half").fishers[1]["layer.weight"], obs[::2].square().mean(0).expand(2, -1)
    )


def run_with(strategy: Any, path: str) -> Any:
    run(strategy=strategy, path=path)
    return strategy


def test_fisher_information_of_a_policy_is_that_of_its_choices() -> None:
    """l = w x: F_ki = mean over x of sum_a p_a (1[a = k] - p_k)^2 x_i^2 = mean of p_k (1 - p_k) x_i^2."""
    ewc = EWC()
    finished = ml(
        "model.hidden=[]", "model.steps=8", env=[Bandit, Bandit], agent="A2C", strategy=ewc, **SHORT
    )
    obs = torch.cat([batch.obs for batch in finished.replay.once()])
    with torch.no_grad():
        p = finished.agent(obs).softmax(1)  # [B, 2]
    wanted = ((p * (1 - p))[:, :, None] * obs.square()[:, None]).mean(0)
    found = ewc.fishers[1]
    assert torch.allclose(found["actor.0.weight"], wanted, rtol=1e-4)
    assert not any(name.startswith("critic") for name in found)  # No action depends on it.


def test_mas_measures_the_squared_norm_of_the_q_values() -> None:
    """d sum_k Q_k^2 / dw_ki = 2 Q_k x_i."""
    mas = MAS()
    finished = run(strategy=mas, env=[Bandit])
    obs = torch.cat([batch.obs for batch in finished.replay.once()])
    with torch.no_grad():
        q = finished.agent(obs)
    wanted = (2 * q[:, :, None] * obs[:, None]).abs().mean(0)
    assert torch.allclose(mas.omega["layer.weight"], wanted, rtol=1e-4)


def test_lwf_keeps_q_values_near_those_of_before() -> None:
    class Watched(LwF):
        def after_loss(self, agent: nn.Module, batch: Any, loss: Tensor) -> Tensor:
            total = super().after_loss(agent, batch, loss)
            if self.teacher:
                then = batch.obs @ self.teacher["layer.weight"].T + self.teacher["layer.bias"]
                distance = (agent(batch.obs) - then).square().sum(1).mean()
                assert torch.allclose(total - loss, 0.7 * distance, atol=1e-6)
                self.checked = True
            return total

    lwf = Watched(importance=0.7)
    run(strategy=lwf)
    assert lwf.checked


@pytest.mark.parametrize("strategy", ["ewc", "ewc_online", "si", "mas"])
def test_a_network_that_no_loss_reaches_is_left_alone(strategy: str) -> None:
    """As a target network is: with a gradient of 0 it would decay."""

    class Target(Q):
        def __init__(self, in_features: int, out_features: int) -> None:
            super().__init__(in_features, out_features)
            self.target = nn.Linear(in_features, out_features)
            self.first = self.target.weight.detach().clone()

    finished = run(model=Target, strategy=strategy, optim="AdamW", **{"optim.weight_decay": 0.5})
    assert torch.equal(finished.agent.target.weight, finished.agent.first)


def test_targets_of_our_agents_are_no_part_of_a_penalty() -> None:
    ewc = EWC()
    ml("model.hidden=[4]", env=[Bandit, Bandit], agent="DQN", strategy=ewc, **SHORT)
    assert {name.split(".")[0] for name in ewc.fishers[0]} == {"network"}


@pytest.mark.parametrize("agent", ["SAC", "TD3", "DDPG"])
@pytest.mark.parametrize("strategy", ["ewc", "si", "mas", "lwf", "cumulative"])
def test_continuous_actions(agent: str, strategy: str) -> None:
    finished = ml(
        "model.hidden=[4]", env=["Pendulum-v1"] * 2, agent=agent, strategy=strategy, time_limit=10,
        **SHORT | {"train_steps": 30},
    )  # fmt: skip
    assert np.isfinite(finished.accuracy_matrix).all()


def test_dicts_are_observed() -> None:
    class Two(Bandit):
        observation_space = spaces.Dict(
            {"cue": spaces.Box(-9, 9, (1,)), "rest": spaces.Box(-9, 9, (2,))}
        )

        def reset(self, **kwargs: Any) -> Any:
            obs, info = super().reset(**kwargs)
            return {"cue": obs[:1], "rest": obs[1:]}, info

        def step(self, action: Any) -> Any:
            obs, *rest = super().step(action)
            return {"cue": obs[:1], "rest": obs[1:]}, *rest

    class Both(Q):
        def __init__(self, out_features: int) -> None:
            super().__init__(3, out_features)

        def forward(self, obs: Any) -> Tensor:
            return self.layer(torch.cat([obs["cue"], obs["rest"]], 1))

    for strategy in ("ewc", "mas", "lwf"):
        assert "fwt" in run(env=[Two, Two], model=Both, strategy=strategy, path=strategy).metrics


def test_a_strategy_of_ones_own_sees_transitions() -> None:
    class Mine:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def begin_task(self, agent: nn.Module, replay: Any) -> None:
            self.seen.append(("begin", replay.task, len(replay)))

        def after_loss(self, agent: nn.Module, batch: Any, loss: Tensor) -> Tensor:
            assert torch.equal(self.context.logits(batch.obs), agent(batch.obs))  # type: ignore[attr-defined]
            assert torch.equal(self.context.loss(batch), loss)  # type: ignore[attr-defined]
            assert {"obs", "action", "reward", "next_obs", "task"} <= set(batch)
            return loss

        def end_task(self, agent: nn.Module, replay: Any) -> None:
            tasks = torch.cat([batch.task for batch in replay.once()])
            self.seen.append(("end", tasks.unique().tolist(), len(tasks)))

        def after_evaluation(self, agent: nn.Module, metrics: dict[str, float]) -> None:
            self.seen.append(sorted(k for k in metrics if "return/" in k))

    mine = Mine()
    run(strategy=mine)
    assert mine.seen == [
        ("begin", 0, 0), ("end", [0], 60), ["return/task_0"],
        ("begin", 1, 0), ("end", [1], 60), ["return/task_0", "return/task_1"],
    ]  # fmt: skip


def test_a_learn_that_waits_has_not_updated_itself() -> None:
    class Waits(Q):
        def learn(self, replay: Any, log: Any) -> Any:
            return None if len(replay) < 20 else super().learn(replay, log)

    assert len(run(model=Waits, strategy="ewc").agent.met) == 2 * 41


# ---------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("strategy", "says"),
    [
        ("er", "the replay is the memory"),
        ("er_ace", "cross-entropy over classes"),
        ("der", "strategy=lwf"),
        ("derpp", "labelled rows"),
        ("gem", "labelled rows"),
        ("agem", "labelled rows"),
        ("gdumb", "by class"),
        ("cwr", "class"),
        ("icarl", "class"),
        ("pnn", "does not know the task"),
        ("packnet", "does not know the task"),
        ("joint", "strategy=cumulative"),
    ],
)
def test_those_that_need_labels_are_refused_each_with_its_reason(strategy: str, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        run(strategy=strategy)
    assert f"strategy={strategy} is not available in environments" in str(raised.value)
    assert says in str(raised.value)
    assert "ewc_online, si, mas and lwf" in str(raised.value)
    assert not Path("runs").exists()


def refused(*words: str, says: str, **settings: Any) -> None:
    with pytest.raises(ConfigError, match=says):
        run(*words, **settings)
    assert not Path("runs").exists()


@pytest.mark.parametrize("agent", ["PPO", None])
def test_an_agent_that_updates_itself_is_refused_before_it_learns(agent: str | None) -> None:
    class Policy(nn.Module):
        """Gives a distribution, so that it is learnt by PPO."""

        def __init__(self, in_features: int, out_features: int) -> None:
            super().__init__()
            self.layer = nn.Linear(in_features, out_features)

        def forward(self, obs: Tensor) -> Any:
            return torch.distributions.Categorical(logits=self.layer(obs))

    refused(model=agent or Policy, strategy="ewc", says="updates itself. Use an agent .*DQN, DRQN")


def test_a_model_that_updates_itself_is_told_so_when_it_does() -> None:
    class Updates(Q):
        def learn(self, replay: Any, log: Any) -> Any:
            super().learn(replay, log).backward()
            with torch.no_grad():
                self.layer.weight -= 0.1 * self.layer.weight.grad

    with pytest.raises(ConfigError, match="returned None: it has updated itself"):
        run(model=Updates, strategy="si")


def test_what_does_not_fit_is_said_at_once() -> None:
    refused("strategy.ewc.fisher=weighted", strategy="ewc", says="fisher=weighted")
    refused("strategy.lwf.temperature=1", strategy="lwf", says="outputs are values")
    refused(
        strategy="cumulative", capacity=100, says=r"120 steps, but capacity=100 .* capacity=144"
    )
    refused(strategy="cumulative", model="A2C", says="A2C learns only from its newest steps")
    refused(strategy="lwf", model="A2C", says="A2C learns only from its newest steps")
    refused(strategy="si", model="Random", says="Random has no `learn`")
    refused(strategy="ewc", model="DRQN", says=r"DRQN.forward carries a state\. strategy=si")

    class Acts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))

        def act(self, obs: Tensor) -> Tensor:
            return torch.zeros(len(obs), dtype=torch.long)

        def learn(self, replay: Any) -> Tensor:
            return (next(replay).obs @ self.weight).mean()

    refused(strategy="mas", model=Acts, says="Acts has no `forward`")

    class Predicts:
        def predict(self, agent: Any, obs: Any, task: Any) -> Any:
            return agent(obs)

    refused(strategy=Predicts, says="has a `predict`, which is not called in environments")
    two = [Cumulative(), Cumulative()]
    refused(strategy=two, says="given twice")


def test_si_works_on_the_loss_of_an_agent_with_a_memory() -> None:
    finished = run(model="DRQN", strategy="si", **{"replay.sequence": 4})
    assert np.isfinite(finished.accuracy_matrix).all()


# ------------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize(
    ("strategy", "at"),
    [
        *[("ewc", 80), ("ewc", 140), ("ewc_online", 90), ("si", 80), ("mas", 140), ("lwf", 90)],
        *[("cumulative", 80), (None, 140)],
    ],
)
def test_it_goes_on_to_the_bit_in_any_task(
    strategy: str | None, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {
        **{"env": ["CartPole-v1"] * 3, "model": "DQN", "strategy": strategy, "save_every": 20},
        **{"num_envs": 2, "nstep": 2, "replay.prioritized": True, "normalize_obs": True},
        **{"model.hidden": [4], "eval_every": 50, "seed_steps": 10, "learn_every": 1},
    }
    whole = run(path="whole", **settings)
    from antelope.agents import DQN

    learn, calls = DQN.learn, 0

    def crashing(self: Any, replay: Any, log: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return learn(self, replay, log)

    with monkeypatch.context() as patch:
        patch.setattr(DQN, "learn", crashing)
        with pytest.raises(KeyboardInterrupt):
            run(path="cut", **settings)
    resumed = run(path="cut", resume=True, **settings)
    assert torch.equal(weights(whole), weights(resumed))
    assert Path("cut/eval.csv").read_bytes() == Path("whole/eval.csv").read_bytes()
    assert np.array_equal(whole.accuracy_matrix, resumed.accuracy_matrix, equal_nan=True)
    assert whole.metrics == resumed.metrics


def test_a_saved_replay_of_a_sequence_is_learnt_whole_offline() -> None:
    run(strategy="naive").replay.save("kept")
    settings = {key: value for key, value in SHORT.items() if key != "seed_steps"}
    met = ml(env=Bandit, model=Q, offline="kept", **settings).agent.met
    assert [0, 1] in met


# --------------------------------------------------------------------------- spaces that differ


def test_what_the_message_advises_makes_two_environments_of_one_run() -> None:
    from gymnasium.wrappers import TransformAction, TransformObservation

    two: list[Any] = ["CartPole-v1", "Acrobot-v1"]
    with pytest.raises(ConfigError) as raised:
        run(env=two, model="A2C")
    message = str(raised.value)
    assert "The observations of CartPole-v1 are float32 4, those of Acrobot-v1 float32 6" in message
    assert "The actions of CartPole-v1 are one of 2, those of Acrobot-v1 one of 3" in message
    assert "numpy.pad(obs, (0, 2)), Box(-inf, inf, (6,))" in message
    assert "lambda action: action % 2, Discrete(3)" in message

    def wide() -> gymnasium.Env[Any, Any]:
        env = gymnasium.make("CartPole-v1")
        box = spaces.Box(-np.inf, np.inf, (6,))
        env = TransformObservation(env, lambda obs: np.pad(obs, (0, 2)), box)
        return TransformAction(env, lambda action: action % 2, spaces.Discrete(3))

    finished = run(env=[wide, "Acrobot-v1"], model="A2C", time_limit=20)
    assert finished.accuracy_matrix.shape == (2, 2)


def made(obs: Any, action: Any = None) -> Any:
    from ..envs.toys import echo

    return echo(obs, action)


BOX = spaces.Box(-1, 1, (2,))


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        ({"a": BOX, "b": BOX}, {"a": BOX}, r"have `b`.* FilterObservation\(filter_keys=\['a'\]\)"),
        ({"a": BOX}, BOX, "a dict of `a`.* FlattenObservation"),
        (BOX, spaces.Box(-1, 1, (2,), np.float64), "float64 2. DtypeObservation"),
        (
            spaces.Box(0, 255, (3, 64, 64), np.uint8),
            spaces.Box(0, 255, (3, 32, 32), np.uint8),
            "ResizeObservation",
        ),
        (spaces.Discrete(3), spaces.Discrete(5), r"TransformObservation\(.*Discrete\(5\)"),
    ],
)
def test_observations_that_differ_are_named_with_the_wrapper_that_helps(
    one: Any, other: Any, says: str
) -> None:
    pair = [spaces.Dict(x) if isinstance(x, dict) else x for x in (one, other)]
    with pytest.raises(ConfigError, match=says):
        run(env=[made(space) for space in pair], model="Random")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        (BOX, spaces.Box(-2, 2, (2,)), r"from -1 to 1, .* from -2 to 2. RescaleAction"),
        (spaces.Discrete(2), BOX, "discrete=true"),
        (spaces.MultiDiscrete([2, 2]), spaces.MultiDiscrete([2, 3]), "of your own"),
    ],
)
def test_actions_that_differ_are_named_too(one: Any, other: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        run(env=[made(BOX, one), made(BOX, other)], model="Random")


def test_what_may_differ() -> None:
    """Where choices begin, and bounds of observations, of which the model hears the widest."""
    first = made(BOX, spaces.Discrete(2, start=3))
    finished = run(env=[first, made(spaces.Box(-5, 7, (2,)), spaces.Discrete(2))], model="Random")
    assert finished.spec.obs.low.tolist() == [-5, -5]
    assert finished.spec.obs.high.tolist() == [7, 7]


class Exits(gymnasium.Env[np.ndarray, int]):
    """Of `doors` doors the first is right."""

    def __init__(self, doors: int = 2, padded: bool = False) -> None:
        self.doors, self.size = doors, 3 if padded else doors
        self.observation_space = spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = spaces.Discrete(self.size)
        self.info = {"action_mask": (np.arange(self.size) < doors).astype(np.int8)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, Any]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), self.info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, Any]:
        assert action < self.doors, "took a door that is not there"
        return np.zeros(1, np.float32), float(action == 0), True, False, self.info


def test_numbers_of_actions_may_differ_by_a_mask() -> None:
    settings: dict[str, Any] = {
        **{"agent": "DQN", "env_info": ["action_mask"], "train_steps": 60, "seed_steps": 20},
        **{"batch_size": 16, "eval_episodes": 2, "plot": False, "progress": False},
    }
    with pytest.raises(ConfigError) as caught:
        ml(env=[lambda: Exits(2), lambda: Exits(3)], **settings)
    assert "one of 2" in str(caught.value)
    assert "action_mask of 3" in str(caught.value)
    ml(env=[lambda: Exits(2, padded=True), lambda: Exits(3)], **settings)
