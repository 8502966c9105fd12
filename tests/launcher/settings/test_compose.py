"""Words and keywords become one configuration, whatever their order and whichever the door."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra.core.global_hydra import GlobalHydra
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import nn

from antelope.launcher.settings.compose import compose
from antelope.launcher.settings.plan import make_plan
from antelope.launcher.settings.presets import presets
from antelope.launcher.settings.schema import schema
from antelope.launcher.settings.settings import Settings
from antelope.replay import ConfigError

# A key, and a value that is the same thing in Python and in the console.
SETTINGS: dict[str, Any] = {
    "model": "Net",
    "model.hidden": 64,
    "model.name": "a b",
    "model.dropout": None,
    "model.encoder._target_": "Encoder",
    "model.encoder.width": 3,
    "model.options": {"a": 1},
    "model.options.b": 2,
    "optim": "SGD",
    "optim.momentum": 0.9,
    "optim.nesterov": True,
    "scheduler": "StepLR",
    "scheduler.step_size": 5,
    "dataset": "MNIST",
    "dataset.subset": [1, 2],
    "seed": 3,
    "epochs": 4,
    "standardize": False,
    "weight_decay": 0.01,
    "loggers": ["csv", "tensorboard"],
    "experiment": "first",
    "early_stopping.patience": 2,
}


def word(key: str, value: Any) -> str:
    if isinstance(value, list):
        return f"{key}=[{','.join(map(str, value))}]"
    if isinstance(value, dict):
        return f"{key}={{{','.join(f'{name}:{item}' for name, item in value.items())}}}"
    plain = {None: "null", True: "true", False: "false"}
    return f"{key}={plain[value] if value is None or isinstance(value, bool) else value}"


def mistakes(*words: Any, **code: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        compose(words, code)
    return str(raised.value)


some_settings = st.lists(st.sampled_from(sorted(SETTINGS)), unique=True, max_size=7)


class TestOrder:
    @pytest.mark.row(32)
    @settings(max_examples=40)
    @given(some_settings, st.randoms(use_true_random=False))
    def test_of_words_never_matters(self, keys: list[str], random: Any) -> None:
        words = [word(key, SETTINGS[key]) for key in keys]
        shuffled = list(words)
        random.shuffle(shuffled)
        assert compose(words, {}).values == compose(shuffled, {}).values

    @settings(max_examples=40)
    @given(some_settings, st.randoms(use_true_random=False))
    def test_of_keywords_never_matters(self, keys: list[str], random: Any) -> None:
        shuffled = list(keys)
        random.shuffle(shuffled)
        one, other = ({key: SETTINGS[key] for key in order} for order in (keys, shuffled))
        assert compose([], one).values == compose([], other).values

    @pytest.mark.row(32)
    def test_of_a_sub_key_and_those_below_it_does_not_matter(self) -> None:
        for words in permutations(("model=Net", "model.options={a:1}", "model.options.b=2")):
            made = compose(words, {}).model
            assert made == {"_target_": "Net", "options": {"a": 1, "b": 2}}, words

    def test_of_a_list_and_a_sub_key_does_not_matter(self) -> None:
        words = ("dataset=[A,B]", "dataset.train=true")
        assert all("is a list here" in mistakes(*order) for order in permutations(words))

    def test_of_two_of_one_name_a_sub_key_says_how_to_tell_them_apart(self) -> None:
        said = mistakes("env_wrappers=[Clip,Clip]", "env_wrappers.Clip.high=3")
        assert "lists 2 of that name" in said
        assert "env_wrappers=[{_target_: Clip, high: ...}, ...]" in said


class TestDoors:
    @pytest.mark.row(33)
    @settings(max_examples=40)
    @given(some_settings)
    def test_code_and_console_write_the_same_file(self, keys: list[str]) -> None:
        chosen = {key: SETTINGS[key] for key in keys}
        console = compose([word(key, value) for key, value in chosen.items()], {})
        code = compose([], chosen)
        assert code.yaml() == console.yaml()
        assert code.given == console.given

    @pytest.mark.row(33)
    @pytest.mark.parametrize(
        ("words", "code"),
        [
            (["optim=SGD", "optim.lr=0.1"], {"optim": {"_target_": "SGD", "lr": 0.1}}),
            (["optim={_target_:SGD,lr:0.1}"], {"optim": {"_target_": "SGD", "lr": 0.1}}),
            (["agent=Net"], {"model": "Net"}),
            (["early_stopping.patience=3"], {"early_stopping": {"patience": 3}}),
            (["loggers=csv"], {"loggers": ("csv",)}),
            (["path=a/b"], {"path": Path("a/b")}),
            (["dataset=[A,B]"], {"dataset": ["A", "B"]}),
            (["lr=1"], {"lr": 1.0}),
            (["precision=16"], {"precision": "16"}),
            (["model=torch.nn.modules.linear.Identity"], {"model": nn.Identity}),
        ],
    )
    def test_these_are_the_same(self, words: list[str], code: dict[str, Any]) -> None:
        assert compose(words, {}).yaml() == compose([], code).yaml()

    def test_the_file_is_plain_yaml(self) -> None:
        settings = compose([], {"model": nn.Linear(2, 2), "optim": torch.optim.SGD})
        values = OmegaConf.to_container(OmegaConf.create(settings.yaml()))
        assert values == settings.values
        assert settings.values["optim"] == {"_target_": "torch.optim.sgd.SGD"}

    def test_numbers_of_numpy_are_numbers(self) -> None:
        settings = compose([], {"seed": np.int64(3), "lr": np.float64(0.5), "epochs": np.int32(2)})
        assert settings.yaml() == compose(["seed=3", "lr=0.5", "epochs=2"], {}).yaml()


class TestPrecedence:
    def test_console_over_code_over_preset_over_defaults(self) -> None:
        assert compose([], {}).epochs is None
        preset = compose(["task=classify/mnist"], {})
        assert preset.epochs is not None
        assert preset.dataset == {"_target_": "MNIST"}
        assert compose(["task=classify/mnist"], {"epochs": 77}).epochs == 77
        assert compose(["task=classify/mnist", "epochs=78"], {"epochs": 77}).epochs == 78
        assert compose([], {"task": "classify/mnist"}).values == preset.values

    def test_a_name_drops_what_lower_layers_said_of_another(self) -> None:
        code = {"optim": {"_target_": "SGD", "momentum": 0.9}}
        assert compose(["optim=Adam"], code).optim == {"_target_": "Adam"}
        assert compose(["optim=Adam", "optim.lr=1"], code).optim == {"_target_": "Adam", "lr": 1}

    def test_a_sub_key_adds_to_what_lower_layers_said(self) -> None:
        settings = compose(["optim.lr=1"], {"optim": {"_target_": "SGD", "momentum": 0.9}})
        assert settings.optim == {"_target_": "SGD", "momentum": 0.9, "lr": 1}
        assert compose(["optim.lr=1"], {}).optim == {"_target_": "AdamW", "lr": 1}

    def test_nested_sub_keys_add_up(self) -> None:
        settings = compose(
            ["model.encoder.depth=2"], {"model": "Net", "model.encoder": {"width": 3}}
        )
        assert settings.model == {"_target_": "Net", "encoder": {"width": 3, "depth": 2}}

    def test_null_takes_a_setting_back(self) -> None:
        assert compose(["model=null"], {"model": "Net"}).model is None
        assert compose(["~model"], {"model": "Net"}).model is None

    @pytest.mark.parametrize(
        ("words", "code", "lr", "sub_key"),
        [
            (["lr=1"], {}, 1, None),
            (["optim.lr=1"], {}, None, 1),
            (["lr=1"], {"optim.lr": 2}, 1, None),
            (["optim.lr=1"], {"lr": 2}, None, 1),
            (["lr=1"], {"lr": 2}, 1, None),
            (["optim=SGD"], {"lr": 2}, 2, None),
            (["optim=SGD"], {"optim.lr": 2}, None, None),
        ],
    )
    def test_of_a_shorthand_and_its_sub_key(
        self, words: list[str], code: dict[str, Any], lr: float | None, sub_key: float | None
    ) -> None:
        settings = compose(words, code)
        assert (settings.lr, settings.optim.get("lr")) == (lr, sub_key)

    def test_a_shorthand_that_disagrees_in_one_layer_is_a_mistake(self) -> None:
        text = mistakes("weight_decay=1", "optim.weight_decay=2")
        assert text == "`weight_decay=1` and `optim.weight_decay=2` disagree. Set only one of them."


class TestLiveObjects:
    def test_travel_beside_the_configuration(self) -> None:
        model = nn.Linear(2, 2)
        settings = compose(["model.bias=false"], {"model": model, "optim": torch.optim.SGD})
        assert settings.live == {"model": model, "optim": torch.optim.SGD}
        assert settings.model["_target_"] == "instance of torch.nn.modules.linear.Linear"
        assert settings.model["bias"] is False

    def test_give_way_to_a_name_of_the_console(self) -> None:
        settings = compose(["model=Other"], {"model": nn.Linear, "model.bias": nn.Identity()})
        assert settings.live == {}
        assert settings.model == {"_target_": "Other"}

    @pytest.mark.parametrize("target", ["Net", nn.Linear])
    def test_may_be_arguments(self, target: Any) -> None:
        encoder = nn.Identity()
        settings = compose([], {"model": {"_target_": target, "encoder": encoder}})
        assert settings.live["model.encoder"] is encoder

    def test_of_a_dict_with_a_class(self) -> None:
        settings = compose([], {"optim": {"_target_": torch.optim.SGD, "lr": 0.5}})
        assert settings.live == {"optim": torch.optim.SGD}
        assert settings.optim == {"_target_": "torch.optim.sgd.SGD", "lr": 0.5}

    def test_of_a_shorthands_sub_key_give_way_to_the_console(self) -> None:
        lr = torch.tensor(0.5)
        settings = compose(["lr=1"], {"optim": {"_target_": torch.optim.SGD, "lr": lr}})
        assert settings.lr == 1
        assert "optim.lr" not in settings.live

    def test_in_lists_keep_their_place(self) -> None:
        data = torch.utils.data.TensorDataset(torch.zeros(2, 1), torch.zeros(2))
        settings = compose([], {"dataset": ["MNIST", data]})
        assert settings.live["dataset"] == ["MNIST", data]
        assert settings.dataset == ["MNIST", "instance of torch.utils.data.dataset.TensorDataset"]

    def test_pairs_of_arrays_are_one_object(self) -> None:
        pair = (np.zeros((3, 2)), np.zeros(3))
        settings = compose([], {"dataset": pair})
        assert settings.live["dataset"] is pair
        assert "3x2" in settings.dataset["_target_"]

    def test_tasks_of_plain_lists_are_objects_too(self) -> None:
        task = ([[0.5, 1.0], [0.1, 0.2], [0.3, 0.4]], [0, 1, 1])
        for tasks in ([task, task], [task, task, task]):
            settings = compose([], {"dataset": tasks})
            assert settings.live["dataset"] == tasks
            plan = make_plan(settings, names=("dataset",))
            assert [named.target for named in plan.dataset or ()] == tasks

    @pytest.mark.parametrize(
        "files", [(["a.png", "b.png"], ["cat", "dog"]), [("a.png", 0), ("b.png", 1), ("c.png", 0)]]
    )
    def test_names_of_files_are_no_inputs(self, files: Any) -> None:
        with pytest.raises(ConfigError, match="folder for each class and give the folder"):
            make_plan(compose([], {"dataset": files}), names=("dataset",))

    def test_an_argument_of_one_callback_may_name_it_as_in_a_list(self) -> None:
        words = ("callbacks=mine.py:Stop", "callbacks.Stop.after=2")
        expected = {"_target_": "mine.py:Stop", "after": 2}
        assert compose(words, {}).callbacks == expected
        assert compose((words[0], "callbacks.after=2"), {}).callbacks == expected

    def test_where_a_plain_value_belongs_are_a_mistake(self) -> None:
        assert "expected int >= 1" in mistakes(epochs=nn.Identity())


class TestMistakes:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("sed=1", "Unknown setting `sed`. Did you mean `seed`?"),
            ("modle=Net", "Did you mean `model`"),
            ("early_stopping.patients=3", "There are: early_stopping.patience"),
            ("early_stopping=3", "Did you mean `early_stopping.patience`"),
            ("lr.warmup=3", "`lr` has no sub-keys: got `lr.warmup`"),
            ("nothing.like=3", "Unknown setting `nothing`"),
            ("er.weight=0.5", "Did you mean `strategy.er.weight`?"),
            ("task=classify/mist", "No preset `classify/mist`. Did you mean `classify/mnist`"),
            ("loggers=[csv,tensorbord]", "list of csv tensorboard"),
            ("seed=1,2", "Add -m to run each of them, or write a list as seed=[...]"),
            ("path=[", "quote a value"),
            ("experiment=${nothing}", "nothing"),
        ],
    )
    def test_say_what_would_be_right(self, given: str, message: str) -> None:
        assert message in mistakes(given)

    @pytest.mark.parametrize(
        ("given", "kind"),
        [
            ("epochs=0", "int >= 1"),
            ("epochs=1.5", "int >= 1"),
            ("epochs=many", "int >= 1"),
            ("epochs=true", "int >= 1"),
            ("epochs=inf", "int >= 1"),
            ("epochs=nan", "int >= 1"),
            ("seed=-1", "int >= 0"),
            ("lr=0", "float > 0"),
            ("lr=nan", "float > 0"),
            ("lr=inf", "float > 0"),
            ("ema=1.1", "float 0..1"),
            ("discount=-0.1", "float 0..1"),
            ("standardize=3", "bool"),
            ("experiment=''", "text"),
            ("precision=8", "one of 32 tf32 bf16 16"),
            ("loggers=3", "list of"),
            ("optim=null", "name"),
            ("model=[A,B]", "name"),
            ("dataset=[]", "names"),
        ],
    )
    def test_of_type_name_the_type(self, given: str, kind: str) -> None:
        assert f"expected {kind}" in mistakes(given)

    @pytest.mark.parametrize(
        ("given", "value"),
        [("epochs=1e2", 100), ("epochs=2.0", 2), ("ema=1", 1.0), ("lr=1", 1.0), ("seed=0", 0)],
    )
    def test_numbers_that_fit_are_converted(self, given: str, value: float) -> None:
        found = compose([given], {}).values[given.partition("=")[0]]
        assert found == value
        assert type(found) is type(value)

    @pytest.mark.parametrize(
        ("given", "text"),
        [
            ("my runs", "my runs"),
            ("a=b", "a=b"),
            ("seed-1", "seed-1"),
            ("007", "007"),
            ("1e-3", "1e-3"),
            ("1.10", "1.10"),
            ("2024_01", "2024_01"),
        ],
    )
    def test_text_is_kept_as_it_was_written(self, given: str, text: str) -> None:
        assert compose([f"experiment={given}"], {}).experiment == text

    def test_are_all_reported_at_once(self) -> None:
        lines = mistakes("sed=1", "batch_size=0", "task=none", 3, epohcs=2, lr="fast").splitlines()
        expected = ("`sed`", "batch_size=0", "`none`", "got 3", "`epohcs`", "lr=fast")
        assert len(lines) == len(expected)
        assert all(any(part in line for line in lines) for part in expected)

    def test_are_reported_once(self) -> None:
        assert len(mistakes("sed=1", sed=1).splitlines()) == 1

    def test_of_giving_a_setting_twice(self) -> None:
        assert "given twice: 1 and 2" in mistakes("seed=1", "seed=2")
        assert "given twice" in mistakes("model=A", "agent=B")
        assert "given twice" in mistakes(model="A", agent="B")
        assert compose(["seed=1", "seed=1"], {}).seed == 1


def test_every_line_of_the_file_has_a_type_and_a_meaning() -> None:
    text = Path(__file__).parents[3].joinpath("hyperparams", "config.yaml").read_text()
    for key, value in yaml.safe_load(text).items():
        if key in ("defaults", "hydra"):
            continue
        nested = isinstance(value, dict) and "_target_" not in value
        for name in [f"{key}.{below}" for below in value] if nested else [key]:
            assert schema()[name].meaning


def test_defaults_are_of_their_own_type() -> None:
    settings = compose([], {})
    assert settings.given == set()
    for key in schema():
        root, _, rest = key.partition(".")
        node = settings.values[root]
        assert (rest in node) if rest else (root in settings.values)


def test_every_preset_composes_of_known_settings() -> None:
    assert presets()
    known = set(compose([], {}).values)
    for name, meaning in presets().items():
        assert meaning
        assert set(compose([f"task={name}"], {}).values) == known


def test_the_given_settings_are_remembered() -> None:
    assert compose(["optim.lr=1", "agent=Net"], {"seed": 2}).given == {"optim", "model", "seed"}


def test_settings_are_attributes() -> None:
    settings = Settings({"seed": 3})
    assert settings.seed == 3
    with pytest.raises(AttributeError, match="speed"):
        _ = settings.speed


def test_interpolations_are_resolved() -> None:
    assert compose(["experiment=run-${seed}", "seed=4"], {}).experiment == "run-4"


@pytest.fixture
def hydra_in_use() -> Iterator[Any]:
    """What Hydra's global state holds when a run is started inside a Hydra job."""
    GlobalHydra.instance().hydra = in_use = object()  # type: ignore[assignment]
    yield in_use
    GlobalHydra.instance().hydra = None  # Of the instance that is there now.


def test_composing_leaves_hydra_as_it_was_and_works_in_threads(hydra_in_use: Any) -> None:
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda seed=seed: found.append(compose([f"seed={seed}"], {}).seed))
        for seed in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 1, 2, 3, 4, 5]
    assert GlobalHydra.instance().hydra is hydra_in_use


def test_what_hydra_refuses_is_one_error_whatever_else_is_given() -> None:
    with pytest.raises(ConfigError, match="nonesuch"):
        compose(["hydra/launcher=nonesuch"], {"model": "DQN", "optim": "SGD"})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["classes_per_task=2"], ("classes_per_task", 2)),
        (["classes_per_task=[5,3,2]"], ("classes_per_task", [5, 3, 2])),
        (["class_order=shuffled"], ("class_order", "shuffled")),
        (["class_order=[2,0,1]"], ("class_order", [2, 0, 1])),
    ],
)
def test_a_split_is_said_in_a_word_or_a_list(words: list[str], expected: tuple[str, Any]) -> None:
    key, value = expected
    assert compose(words, {}).values[key] == compose([], {key: value}).values[key] == value
