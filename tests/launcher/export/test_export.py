"""run.export: a file that other tools open, which computes what the module does."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from gymnasium import spaces
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

import antelope
from antelope import ConfigError, ml

SHORT: dict[str, Any] = {"plot": False, "progress": False, "train_steps": 3, "batch_size": 8}


class Net(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        layers = nn.Linear(in_features, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5)
        self.layers = nn.Sequential(nn.Flatten(), *layers, nn.Linear(6, out_features))

    def forward(self, obs: Tensor) -> Tensor:
        return self.layers(obs)


def in_onnx(file: Path, *inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    (output,) = session.run(None, dict(zip(names, inputs, strict=True)))
    return np.asarray(output)


def metadata(file: Path) -> dict[str, str]:
    return {prop.key: prop.value for prop in onnx.load(file).metadata_props}


def left(folder: Path) -> set[str]:
    return set(os.listdir(folder))


class TestOnData:
    def test_onnx_accepts_raw_images_in_any_number(self, tmp_path: Path) -> None:
        images = np.random.default_rng(0).integers(0, 256, (40, 3, 5, 4), np.uint8)
        labels = np.array(["cat", "dog"] * 20)
        run = ml(
            model=Net, dataset=(images, labels), **SHORT, channels="first", path=tmp_path / "run"
        )
        file = run.export("onnx", tmp_path / "net.onnx")
        assert file == tmp_path / "net.onnx"
        for n in (1, 2, 40):
            logits = in_onnx(file, images[:n])
            np.testing.assert_allclose(logits, run(images[:n]), rtol=1e-4, atol=1e-5)
        found = metadata(file)
        assert json.loads(found["classes"]) == ["cat", "dog"]
        (given,) = json.loads(found["inputs"])
        assert (given["name"], given["dtype"], given["layout"]) == (
            "obs",
            "uint8",
            "channels first",
        )
        np.testing.assert_allclose(given["mean"], images.mean((0, 2, 3)), rtol=0.05)
        shape = onnx.load(file).graph.input[0].type.tensor_type.shape.dim
        assert shape[0].dim_param == "batch"
        assert [d.dim_value for d in shape[1:]] == [3, 5, 4]

    @pytest.mark.parametrize(
        ("inputs", "more"),
        [
            (
                np.random.default_rng(1).normal(size=(30, 4)) + 1e9,
                {},
            ),  # Too far from 0 for float32.
            (
                np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32),
                {"standardize": False},
            ),
            (np.random.default_rng(1).integers(0, 7, (30, 4)), {"model": "AC2Agent"}),
            (np.random.default_rng(1).integers(0, 2, (30, 4)).astype(bool), {}),
        ],
        ids=["float64", "unit interval", "tokens", "booleans"],
    )
    def test_a_torch_program_accepts_what_the_data_had(
        self, inputs: np.ndarray, more: dict[str, Any], tmp_path: Path
    ) -> None:
        targets = np.random.default_rng(2).normal(size=(30, 2)) * 100
        run = ml(
            dataset=(inputs, targets), **{"model": Net, **SHORT, **more}, path=tmp_path / "run"
        )
        program = torch.export.load(run.export("torch", tmp_path / "net.pt2")).module()
        for n in (1, 7):
            values = program(torch.from_numpy(inputs[:n])).detach()
            np.testing.assert_allclose(values, run(inputs[:n]), rtol=1e-3, atol=1e-3)

    def test_dicts_of_inputs_have_a_name_each(self, tmp_path: Path) -> None:
        class Pairs(torch.utils.data.Dataset[Any]):
            def __len__(self) -> int:
                return 20

            def __getitem__(self, i: int) -> Any:
                image = torch.full((3, 4, 4), i, dtype=torch.uint8)
                return {"eye": image, "word": torch.tensor([i % 5])}, float(i)

        class Both(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.eye, self.word = nn.Linear(48, 1), nn.Embedding(5, 1)

            def forward(self, obs: dict[str, Tensor]) -> Tensor:
                return self.eye(obs["eye"].flatten(1)) + self.word(obs["word"]).flatten(1)

        run = ml(model=Both, dataset=Pairs(), **SHORT, path=tmp_path)
        program = torch.export.load(run.export("torch")).module()
        raw = {
            "eye": torch.arange(20, dtype=torch.uint8).view(-1, 1, 1, 1).expand(20, 3, 4, 4),
            "word": torch.arange(20).view(-1, 1) % 5,
        }
        mean, stddev = (
            x.view(-1, 1, 1) for x in (run.spec.obs["eye"].mean, run.spec.obs["eye"].stddev)
        )
        wanted = run.agent({**raw, "eye": (raw["eye"] - mean) / stddev})
        torch.testing.assert_close(program(raw), wanted, rtol=1e-4, atol=1e-4)

    def test_the_metadata_says_how_the_columns_of_a_table_become_inputs(
        self, tmp_path: Path
    ) -> None:
        frame = pd.DataFrame({"kind": list("xzyz") * 5, "size": np.arange(20.0)})
        frame["price"] = frame["size"] + (frame["kind"] == "z") * 10.0
        run = ml(dataset=frame, target="price", **SHORT, path=tmp_path / "run")
        file = run.export("torch")
        extra = {"metadata.json": ""}
        program = torch.export.load(file, extra_files=extra).module()
        columns = json.loads(json.loads(extra["metadata.json"])["columns"])
        (size,), (kind,) = columns["numbers"], columns["categories"]
        ids = [kind["values"].index(value) + 1 for value in frame[kind["name"]]]
        inputs = {
            "numbers": torch.tensor(frame[[size["name"]]].to_numpy(np.float32)),
            "categories": torch.tensor(ids).unsqueeze(1),
        }
        np.testing.assert_allclose(program(inputs)[:, 0].detach(), run.predict(frame), rtol=1e-4)

    def test_the_metadata_of_a_torch_program_is_within_it(self, tmp_path: Path) -> None:
        run = ml(model=Net, **SHORT, path=tmp_path / "run")
        extra = {"metadata.json": ""}
        torch.export.load(run.export("torch"), extra_files=extra)
        assert json.loads(extra["metadata.json"])["model"] == "Net"

    def test_safetensors_say_how_to_prepare_inputs(self, tmp_path: Path) -> None:
        run = ml(model=Net, **SHORT, ema=0.5, path=tmp_path / "run")
        file = run.export("safetensors")
        again = Net(64, 10).eval()
        again.load_state_dict(load_file(file))
        with safe_open(file, framework="pt") as opened:
            (given,) = json.loads(opened.metadata()["inputs"])
        raw = torch.randint(0, 17, (5, 1, 8, 8), dtype=torch.uint8)
        assert (given["dtype"], given["preparation"]) == ("float32", "(x - mean) / stddev")
        mean, stddev = (torch.tensor(given[name]).view(-1, 1, 1) for name in ("mean", "stddev"))
        torch.testing.assert_close(again((raw - mean) / stddev), run(raw), rtol=1e-4, atol=1e-5)

    def test_safetensors_say_how_inputs_come_into_the_unit_interval(self, tmp_path: Path) -> None:
        rows = np.random.default_rng(1).uniform(-3, 9, (30, 4)).astype(np.float32)
        data: Any = {"dataset": (rows, rows[:, 0]), "standardize": False}
        run = ml(model=Net, **data, **SHORT, path=tmp_path / "run")
        file = run.export("safetensors")
        again = Net(4, 1).eval()
        again.load_state_dict(load_file(file))
        with safe_open(file, framework="pt") as opened:
            (given,) = json.loads(opened.metadata()["inputs"])
        assert given["preparation"] == "(x - low) / (high - low)"
        low, high = (torch.tensor(given[name]) for name in ("low", "high"))
        prepared = (torch.from_numpy(rows) - low) / (high - low)
        torch.testing.assert_close(again(prepared), run(rows), rtol=1e-4, atol=1e-5)

    def test_the_columns_of_a_data_frame_of_numbers_keep_their_names(self, tmp_path: Path) -> None:
        frame = pd.DataFrame(np.random.default_rng(1).normal(size=(30, 2)), columns=["b", "a"])
        run = ml(model=Net, dataset=(frame, np.arange(30.0)), **SHORT, path=tmp_path / "run")
        with safe_open(run.export("safetensors"), framework="pt") as opened:
            assert json.loads(opened.metadata()["columns"]) == ["b", "a"]

    def test_a_loaded_run_exports_the_same(self, tmp_path: Path) -> None:
        run = ml(model=Net, **SHORT, path=tmp_path / "run")
        one = run.export("torch", tmp_path / "one.pt2")
        two = antelope.load(tmp_path / "run", model=Net).export("torch", tmp_path / "two.pt2")
        raw = torch.randint(0, 17, (4, 1, 8, 8), dtype=torch.uint8)
        outputs = [torch.export.load(file).module()(raw) for file in (one, two)]
        assert torch.equal(*outputs)

    def test_other_libraries_log_again_after_an_export(self, tmp_path: Path) -> None:
        ml(model=Net, **SHORT, path=tmp_path / "run").export("torch")
        assert logging.getLogger("other").isEnabledFor(logging.WARNING)

    def test_training_goes_on_as_if_nothing_was_exported(self, tmp_path: Path) -> None:
        ends = []
        for name, exports in (("one", True), ("two", False)):
            tasks = ml.tasks(model=Net, dataset="Digits", tasks=2, **SHORT, path=tmp_path / name)
            for task in tasks:
                task.learn()
                if exports:
                    tasks.run.export("torch")
            ends.append(tasks.run.agent.state_dict())
        torch.testing.assert_close(*ends, rtol=0, atol=0)


class TestInEnvironments:
    @pytest.mark.parametrize("model", ["PPO", "DQN"])
    def test_the_policy_accepts_observations_as_the_module_does(
        self, model: str, tmp_path: Path
    ) -> None:
        quick = {**SHORT, "train_steps": 40, "eval_episodes": 1}
        run = ml(model=model, env="CartPole-v1", **quick, path=tmp_path)
        program = torch.export.load(run.export("torch")).module()
        for n in (1, 100, 5000):
            obs = torch.randn(n, 4)
            torch.testing.assert_close(program(obs), run.agent(obs), rtol=1e-4, atol=1e-5)

    def test_dicts_have_an_input_and_an_output_each(self, tmp_path: Path) -> None:
        class Signals(gymnasium.Env[dict[str, Any], dict[str, Any]]):
            observation_space = spaces.Dict(
                {"a/b": spaces.Box(-1, 1, (3,), np.float32), "cue": spaces.Discrete(2)}
            )
            action_space = spaces.Dict({"go": spaces.Discrete(2), "to": spaces.Discrete(3)})

            def reset(self, **_: Any) -> Any:
                return self.observation_space.sample(), {}

            def step(self, action: Any) -> Any:
                return self.observation_space.sample(), 1.0, True, False, {}

        class Policy(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(5, 5)

            def forward(self, obs: dict[str, Tensor]) -> dict[str, Tensor]:
                both = self.layer(torch.cat([obs["a/b"], obs["cue"]], -1))
                return {"go": both[:, :2], "to": both[:, 2:]}

        quick = {**SHORT, "train_steps": 20, "eval_episodes": 1}
        run = ml(model=Policy, env=Signals, **quick, path=tmp_path)
        file = run.export("onnx")
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        assert [given.name for given in session.get_inputs()] == ["a/b", "cue"]
        assert [given.name for given in session.get_outputs()] == ["go", "to"]
        obs = {"a/b": torch.randn(4, 3), "cue": torch.eye(2)[[0, 1, 1, 0]]}
        found = session.run(None, {name: value.numpy() for name, value in obs.items()})
        for logits, wanted in zip(found, run.agent(obs).values(), strict=True):
            np.testing.assert_allclose(logits, wanted.detach(), rtol=1e-4, atol=1e-5)


class Noisy(Net):
    def forward(self, obs: Tensor) -> Tensor:
        return super().forward(obs) + torch.rand(obs.shape[0], 1)


class OneSize(Net):
    def forward(self, obs: Tensor) -> Tensor:
        return super().forward(obs).view(len(obs), -1)


class Grows(Net):
    def forward(self, obs: Tensor) -> Tensor:
        return super().forward(obs) * (2 if obs.shape[0] > 100 else 1)


class OfOneRow(Net):
    def forward(self, obs: Tensor) -> Tensor:
        return super().forward(obs) * (2 if obs.shape[0] == 1 else 1)


class Branches(Net):
    def forward(self, obs: Tensor) -> Tensor:
        return super().forward(obs) * (2 if obs.sum() > 0 else 1)


class Half(Net):
    def __init__(self) -> None:
        super().__init__(64, 10)
        self.bfloat16()

    def forward(self, obs: Tensor) -> Tensor:
        return super().forward(obs.bfloat16()).float()


class Alone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def act(self, obs: Tensor) -> Tensor:
        return self.layer(obs.flatten(1)).argmax(1)

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        return nn.functional.cross_entropy(self.layer(batch.obs.flatten(1)), batch.label)


class TestWhatCannotBeExported:
    @pytest.mark.parametrize(
        ("more", "match"),
        [
            ({"model": Noisy}, "Does `forward` draw random numbers"),
            (
                {"model": OneSize},
                r"batch size at 3, as len\(x\) and int\(...\) do: write x.shape\[0\]",
            ),
            ({"model": Grows}, r"depends on the size B of the batch \(.*B <= 100\)"),
            ({"model": OfOneRow}, "for 1 inputs, the file's outputs differ from the module's"),
            ({"model": Branches}, r"data-dependent expression.*\(in forward, test_export.py line"),
            ({"model": Alone}, "Alone: it has no `forward`"),
            ({"model": "VAE"}, "it has no `forward`"),
            (
                {"model": Net, "tasks": 2, "strategy": "icarl"},
                "strategy=icarl predicts in place of",
            ),
            ({"model": Net, "tasks": 2, "scenario": "task"}, "depend on the task .scenario=task"),
        ],
        ids=[
            "random",
            "one size",
            "large",
            "of one row",
            "branches",
            "act",
            "generator",
            "icarl",
            "task",
        ],
    )
    def test_is_said_and_leaves_nothing_behind(
        self, more: dict[str, Any], match: str, tmp_path: Path
    ) -> None:
        run = ml(**{"dataset": "Digits", **SHORT, **more}, path=tmp_path / "run")
        before = left(run.path)
        model = {} if isinstance(more["model"], str) else {"model": more["model"]}
        for each in (run, antelope.load(tmp_path / "run", **model)):
            with pytest.raises(ConfigError, match=match) as raised:
                each.export("torch")
            assert len(str(raised.value)) < 800
            assert left(run.path) == before
        assert load_file(run.export("safetensors")).keys() == run.agent.state_dict().keys()

    def test_what_onnxruntime_cannot_run_is_said_too(self, tmp_path: Path) -> None:
        run = ml(model=Half, **SHORT, path=tmp_path / "run")
        before = left(run.path)
        with pytest.raises(
            ConfigError, match=r"format=onnx: .*ONNXRuntimeError.*[^.]\. Its weights alone can"
        ):
            run.export("onnx")
        assert left(run.path) == before
        assert run.export("torch").exists()

    @pytest.mark.parametrize(("format", "name"), [("torch", "model.pt2"), ("onnx", "model.onnx")])
    def test_an_earlier_file_stays(self, format: str, name: str, tmp_path: Path) -> None:
        run = ml(model=Noisy, **SHORT, path=tmp_path / "run")
        (tmp_path / name).write_bytes(b"earlier")
        with pytest.raises(ConfigError, match="outputs differ from the module's"):
            run.export(format, tmp_path)
        assert (tmp_path / name).read_bytes() == b"earlier"
        assert left(tmp_path) == {"run", name}


class Tiny(nn.Module):
    noise = 0.0

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return 1e-7 * (self.layer(obs) + self.noise * torch.rand(obs.shape[0], 1))


@pytest.mark.parametrize("noise", [0, 0.5])
def test_values_of_small_units_are_compared_in_their_units(
    noise: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tiny, "noise", noise)
    rows = np.random.RandomState(0).randn(60, 3).astype(np.float32)
    run = ml(model=Tiny, dataset=(rows, 1e-7 * rows[:, 0]), **SHORT, path=tmp_path / "run")
    if noise:
        with pytest.raises(ConfigError, match="Does `forward` draw random numbers"):
            run.export("torch")
    else:
        assert run.export("torch").is_file()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("onxx",), "expected one of onnx, torch, safetensors. Did you mean `onnx`"),
        (("net.onnx",), r"net.onnx is a file: run.export\('onnx', 'net.onnx'\)"),
        (
            ("torch", "net.onnx"),
            "a name for format=onnx, not for format=torch, whose files end in .pt2",
        ),
        (("torch", "nowhere/net.pt2"), "nowhere does not exist"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_traced(
    arguments: tuple[str, ...], match: str, tmp_path: Path
) -> None:
    run = ml(model=Net, **SHORT, path=tmp_path)
    with pytest.raises(ConfigError, match=match):
        run.export(*arguments)


def test_onnx_names_the_packages_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    run = ml(model=Net, **SHORT, path=tmp_path)
    with pytest.raises(ConfigError, match=r"onnxruntime: pip install 'antelope-ml\[export\]'"):
        run.export("onnx")
