"""Parts of agents by settings of their own, and modules that do not say how they learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import antelope
from antelope import ConfigError, ml
from antelope.launcher.ml import main

QUIET: dict[str, Any] = {
    "progress": False,
    "plot": False,
    "eval_episodes": 1,
    "train_steps": 40,
    "seed_steps": 10,
    "batch_size": 8,
}


class Policy(nn.Module):
    """Dict in, dict out."""

    def __init__(self, obs_shapes: Any, action_logits_shapes: Any, hidden: int = 8):
        super().__init__()
        self.shapes = obs_shapes, action_logits_shapes
        self.body = nn.Linear(obs_shapes["obs"][0], hidden)
        self.head = nn.Linear(hidden, action_logits_shapes["action"][0])

    def forward(self, obs: dict[str, Tensor]) -> dict[str, Tensor]:
        features = self.body(obs["obs"]).tanh()
        return {"action": self.head(features), "features": features}


class Critic(nn.Module):
    """Of what the policy has made of the observation."""

    def __init__(self, obs_shapes: Any):
        super().__init__()
        self.shapes = obs_shapes
        self.layer = nn.Linear(obs_shapes["features"][0], 1)

    def forward(self, obs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"value": self.layer(obs["features"])}


class Borrows(nn.Module):
    """A critic with the policy's first layer."""

    def __init__(self, policy: Policy):
        super().__init__()
        self.body, self.layer = policy.body, nn.Linear(policy.head.in_features, 1)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(self.body(obs).tanh())


class Scores(nn.Module):
    """One number per action, and no word of how it learns."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs)


class Sees(nn.Module):
    """An encoder; asked for no width of its own."""

    def __init__(self, in_features: int, width: int = 5):
        super().__init__()
        self.layer = nn.Linear(in_features, width)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs.flatten(1)).relu()


@pytest.mark.usefixtures("workdir")
def test_parts_are_constructed_from_what_they_meet_and_give() -> None:
    run = ml(env="CartPole-v1", model="PPO", policy=Policy, critic=Critic, **QUIET)
    parts = run.agent.composition
    assert parts.policy.module.shapes == ({"obs": (4,)}, {"action": (2,)})
    assert parts.critic.module.shapes == {"obs": (4,), "features": (8,)}


def test_the_console_names_them_and_their_arguments(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Path(__file__).read_text().partition("@pytest.mark.usefixtures")[0]
    (workdir / "nets.py").write_text(source)
    words = [f"{k}={str(v).lower()}" for k, v in QUIET.items() if k != "progress"]
    words += ["env=CartPole-v1", "policy=Policy", "policy.hidden=3", "critic=Critic", "path=run"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "policy gradient (PPO)" in out
    assert f"{4 * 3 + 3 + 3 * 2 + 2 + 3 + 1} parameters" in out
    assert (
        "policy:\n  _target_: nets.py:Policy\n  hidden: 3"
        in (workdir / "run/config.yaml").read_text()
    )
    with pytest.raises(SystemExit):
        main([*words, "policy.hiden=3"])
    assert "Policy has no parameter `hiden`" in capsys.readouterr().err


@pytest.mark.usefixtures("workdir")
def test_what_a_critic_borrows_of_the_policy_is_one_thing() -> None:
    run = ml(env="CartPole-v1", model="PPO", policy=Policy, critic=Borrows, **QUIET)
    parts = run.agent.composition
    assert parts.critic.module.body is parts.policy.module.body
    own = 4 * 8 + 8 + 8 * 2 + 2 + 8 + 1
    assert sum(p.numel() for p in run.agent.parameters()) == own
    # `model.safetensors` has it under both names, and the rest of the checkpoint refers to one.
    newest = max((run.path / "checkpoints").glob("[0-9]*"))
    sizes = [w.shape for w in load_file(newest / "model.safetensors").values()]
    assert sizes.count(torch.Size([8, 4])) == 2
    others = load_file(newest / "tensors.safetensors").values()
    assert torch.Size([8, 4]) not in [w.shape for w in others]
    parts = antelope.load(run.path, policy=Policy, critic=Borrows).agent.composition
    assert parts.critic.module.body is parts.policy.module.body


@pytest.mark.parametrize(
    ("env", "way"), [("CartPole-v1", "DQN"), ("Pendulum-v1", "TD3"), ("MountainCar-v0", "DQN")]
)
@pytest.mark.usefixtures("workdir")
def test_a_module_that_only_predicts_is_trained_in_an_environment(env: str, way: str) -> None:
    begun: list[dict[str, Tensor]] = []

    class Kept(Scores):
        def __init__(self, in_features: int, out_features: int):
            super().__init__(in_features, out_features)
            begun.append({k: v.clone() for k, v in self.state_dict().items()})

    run = ml(env=env, model=Kept, **QUIET)
    assert type(run.agent) is Kept
    assert not run.agent.training
    assert not torch.equal(run.agent.layer.weight, begun[0]["layer.weight"])
    assert run.path.parts[-3] == "Kept"


@pytest.mark.usefixtures("workdir")
def test_a_critic_without_a_policy_beside_it_values_every_action() -> None:
    run = ml(env="CartPole-v1", model="DQN", critic=Scores, **QUIET)
    assert run.agent(torch.zeros(3, 4)).shape == (3, 2)
    run = ml(env="CartPole-v1", model="PPO", critic=Scores, **QUIET)
    assert run.agent.value(torch.zeros(3, 4)).shape == (3,)


@pytest.mark.usefixtures("workdir")
def test_a_module_may_act_by_distributions_and_have_a_critic_beside_it() -> None:
    run = ml(env="CartPole-v1", model=Policy, critic=Critic, **QUIET)
    assert type(run.agent) is Policy
    assert "value" in run.replay.storage.columns.fields


@pytest.mark.usefixtures("workdir")
def test_an_encoder_is_the_first_part_of_any_agent() -> None:
    for settings in (
        {"dataset": "Digits"},
        {"dataset": "Digits", "rl": True},
        {"env": "CartPole-v1"},
        {"env": "CartPole-v1", "model": "PPO"},
        {"env": "Pendulum-v1"},
        {"env": "Pendulum-v1", "model": "TD3"},
    ):
        quiet = QUIET if "env" in settings else {k: QUIET[k] for k in ("progress", "plot")}
        run = ml("encoder.width=6", encoder=Sees, **quiet | {"train_steps": 20} | settings)
        widths = [m.layer.out_features for m in run.agent.modules() if isinstance(m, Sees)]
        assert widths, settings
        assert set(widths) == {6}, settings


@pytest.mark.usefixtures("workdir")
def test_what_only_our_own_agents_are_told_does_not_fill_a_users_parameters() -> None:
    class Own(Scores):
        def __init__(
            self,
            in_features: int,
            out_features: int,
            standardize: str = "mine",
            environment: str = "mine",
        ):
            super().__init__(in_features, out_features)
            self.given = standardize, environment

        def forward(self, obs: Tensor) -> Tensor:
            return super().forward(obs.flatten(1))

    run = ml(model=Own, train_steps=2, progress=False, plot=False)
    assert run.agent.given == ("mine", "mine")
    run = ml(model="VAE", standardize=False, train_steps=2, progress=False, plot=False)
    assert float(run.agent.bounds.high.max()) == 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"env": "CartPole-v1", "model": "SAC", "policy": Policy},
            r"SAC does not accept `policy`\..*PPO",
        ),
        (
            {"env": "CartPole-v1", "model": "PPO", "generator": Scores},
            "PPO does not accept `generator`",
        ),
        ({"dataset": "Digits", "critic": Scores}, "`critic` cannot be used with a data set"),
        ({"dataset": "Digits", "model": Scores, "rl": True}, "Scores does not accept `rl`"),
        ({"env": "CartPole-v1", "rl": True}, "`rl` cannot be used with an environment"),
        ({"dataset": "Diabetes", "rl": True}, "rl=true needs classes"),
        ({"env": "CartPole-v1", "model": Policy, "policy": Policy}, "it is the policy itself"),
        ({"env": "CartPole-v1", "policy": "Polcy"}, "No policy `Polcy`"),
    ],
)
@pytest.mark.usefixtures("workdir")
def test_what_has_no_place_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ml(**settings, progress=False)
    assert not Path("runs").exists()


@pytest.mark.usefixtures("workdir")
def test_a_shape_that_a_dict_has_not_got_is_answered_with_what_to_ask_for() -> None:
    import gymnasium
    from gymnasium import spaces

    class Both(gymnasium.Env[Any, Any]):
        observation_space = spaces.Dict({"a": spaces.Box(0, 1, (2,)), "b": spaces.Box(0, 1, (3,))})
        action_space = spaces.Dict({"c": spaces.Discrete(2)})

        def reset(self, **_: Any) -> Any:
            return self.observation_space.sample(), {}

        def step(self, action: Any) -> Any:
            return self.observation_space.sample(), 0.0, True, False, {}

    with pytest.raises(ConfigError, match="a dict of a, b; ask for `obs_shapes`") as error:
        ml(env=Both, model=Scores, progress=False)
    assert "a dict of c; ask for `action_logits_shapes`" in str(error.value)


@pytest.mark.usefixtures("workdir")
def test_a_parameter_that_no_loss_reaches_is_told_once() -> None:
    class Idle(Scores):
        def __init__(self, in_features: int, out_features: int):
            super().__init__(in_features, out_features)
            self.spare = nn.Linear(2, 2)

        def forward(self, obs: Tensor) -> Tensor:
            return super().forward(obs.flatten(1))

    with pytest.warns(UserWarning, match="No loss reaches `spare.weight`, `spare.bias`") as told:
        ml(model=Idle, epochs=5, progress=False, plot=False)
    assert len(told) == 1


@pytest.mark.usefixtures("workdir")
@pytest.mark.parametrize("model", ["PPO", "DQN"])
def test_weights_start_as_init_says_and_targets_are_copies_of_them(model: str) -> None:
    run = ml(env="CartPole-v1", model=model, init="orthogonal", **QUIET | {"train_steps": 1})
    for name, weight in run.agent.named_parameters():
        if weight.dim() == 2 and min(weight.shape) > 2:
            gram = weight @ weight.T if len(weight) < weight.shape[1] else weight.T @ weight
            assert torch.allclose(gram, 2 * torch.eye(len(gram)), atol=1e-4), name
    if model == "DQN":
        assert torch.equal(run.agent.network[0].weight, run.agent.target[0].weight)


@pytest.mark.usefixtures("workdir")
@pytest.mark.parametrize("policy", [None, Policy])
def test_a_policy_begins_with_the_prior_of_its_actions(policy: Any) -> None:
    parts = {} if policy is None else {"policy": policy}
    run = ml(
        env="CartPole-v1", model="PPO", head_bias=[0.9, 0.1], **parts, **QUIET | {"train_steps": 1}
    )
    p = run.agent.policy(torch.randn(50, 4)).log_p.exp().mean(0)
    assert p.tolist() == pytest.approx([0.9, 0.1], abs=0.03)


@pytest.mark.parametrize(
    ("bias", "says"),
    [
        ([0.9, 0.3], "needs 2 probabilities"),
        ({"acton": [0.9, 0.1]}, "Did you mean `action`"),
        ("often", "expected probabilities"),
    ],
)
@pytest.mark.usefixtures("workdir")
def test_a_prior_that_is_none_is_refused(bias: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ml(env="CartPole-v1", model="PPO", head_bias=bias, progress=False)


@pytest.mark.usefixtures("workdir")
def test_what_learns_values_has_no_prior() -> None:
    with pytest.raises(ConfigError, match="DQN learns the values of actions"):
        ml(env="CartPole-v1", head_bias=[0.5, 0.5], progress=False)
    with pytest.raises(ConfigError, match="do not come straight from a Linear layer"):
        ml(
            env="CartPole-v1",
            model="PPO",
            policy=nn.Sequential(nn.Linear(4, 2), nn.Tanh()),
            head_bias=[0.9, 0.1],
            progress=False,
        )


@pytest.mark.usefixtures("workdir")
def test_a_drawn_model_is_the_parts_with_their_names() -> None:
    run = ml(
        env="CartPole-v1", model="PPO", policy=Policy, critic=Critic, render_model=True, **QUIET
    )
    folder = run.path / "plots"
    assert {path.name for path in folder.glob("model.*")} == {"model.svg", "model.png", "model.txt"}
    text = (folder / "model.txt").read_text()
    assert "policy" in text
    assert "value" in text
    assert "action" in text
