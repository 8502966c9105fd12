"""run.predict, predict_proba and run(inputs): raw inputs, as the data came in, to classes and values."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.datasets import ImageFolder

import antelope
from antelope import ConfigError, DataError, Run, Strategy, ml

QUIET: dict[str, Any] = {"plot": False, "progress": False, "epochs": 1, "batch_size": 16}
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (60, 8, 6, 3), dtype=np.uint8)
WORDS = np.array(["cat", "dog", "eel"])[RNG.integers(0, 3, 60)]
FAR = RNG.normal(size=(60, 4)) * 1e-3 + 1e6
AMOUNTS = RNG.normal(size=60)
TOKENS = RNG.integers(0, 30, (60, 5))


class Net(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(in_features, out_features))

    def forward(self, obs: Tensor) -> Tensor:
        output: Tensor = self.layers(obs)
        return output


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of pictures of several sizes."""
    root = tmp_path_factory.mktemp("photos")
    for name in ("cat", "dog"):
        (root / name).mkdir()
        for i in range(8):
            size = (9 + i % 3, 7, 3)
            picture = Image.fromarray(RNG.integers(0, 256, size, dtype=np.uint8))
            picture.save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> dict[str, tuple[Run, Any]]:
    """Runs on data of several kinds, each with raw inputs."""
    folder = tmp_path_factory.mktemp("runs")
    data = {
        "pixels": ((PIXELS, WORDS), PIXELS),
        "pictures": (str(photos), str(photos)),
        "far": ((FAR, AMOUNTS), FAR),
        "tokens": ((TOKENS, RNG.integers(0, 2, 60) * 3 + 2), TOKENS),
        "dict": (({"a": FAR, "b": TOKENS}, WORDS), {"a": FAR, "b": TOKENS}),
        "several": ((FAR, RNG.integers(0, 2, (60, 3))), FAR),
    }
    return {
        name: (ml(dataset=dataset, path=folder / name, **QUIET), inputs)
        for name, (dataset, inputs) in data.items()
    }


_ELSEWHERE = """
import pickle, sys
import antelope
for path, inputs in pickle.load(open(sys.argv[1], "rb")):
    run = antelope.load(path)
    pickle.dump((run(inputs).numpy(), run.predict(inputs)), open(f"{path}/found.pkl", "wb"))
"""


def test_another_process_gets_the_same_bits(
    runs: dict[str, tuple[Run, Any]], tmp_path: Path
) -> None:
    import pickle

    asked = tmp_path / "asked.pkl"
    asked.write_bytes(pickle.dumps([(str(run.path), inputs) for run, inputs in runs.values()]))
    subprocess.run([sys.executable, "-W", "ignore", "-c", _ELSEWHERE, str(asked)], check=True)
    for run, inputs in runs.values():
        outputs, predictions = pickle.loads((run.path / "found.pkl").read_bytes())
        assert np.array_equal(outputs, run(inputs).numpy())
        assert np.array_equal(predictions, run.predict(inputs))


def test_the_outputs_are_those_of_the_module_for_standardised_inputs(
    runs: dict[str, tuple[Run, Any]],
) -> None:
    run, _ = runs["pixels"]
    space = run.spec.obs
    images = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float()
    obs = (images - space.mean.view(-1, 1, 1)) / space.stddev.view(-1, 1, 1)
    with torch.no_grad():
        logits = run.agent(obs)
    torch.testing.assert_close(run(PIXELS), logits)
    names = np.array(["cat", "dog", "eel"])
    assert np.array_equal(run.predict(PIXELS), names[run(PIXELS).argmax(1)])
    np.testing.assert_allclose(run.predict_proba(PIXELS), logits.softmax(1), rtol=1e-5)


def test_classes_and_values_come_back_as_the_data_had_them(
    runs: dict[str, tuple[Run, Any]],
) -> None:
    assert set(runs["tokens"][0].predict(TOKENS)) <= {2, 5}
    assert set(runs["pictures"][0].predict(runs["pictures"][1])) <= {"cat", "dog"}
    assert runs["far"][0].predict(FAR).shape == (60,)  # Targets came as [N].
    several = runs["several"][0]
    assert np.array_equal(several.predict(FAR), (several(FAR) > 0).numpy())
    assert np.allclose(several.predict_proba(FAR), several(FAR).sigmoid())
    with pytest.raises(ConfigError, match="targets of arrays are values"):
        runs["far"][0].predict_proba(FAR)


def test_images_may_have_their_channels_anywhere_and_a_single_one_is_one_prediction(
    runs: dict[str, tuple[Run, Any]],
) -> None:
    run, _ = runs["pixels"]
    for same in (PIXELS.transpose(0, 3, 1, 2), torch.from_numpy(PIXELS), PIXELS.tolist()):
        assert torch.equal(run(same), run(PIXELS))
    assert torch.equal(run(PIXELS[0]), run(PIXELS[:1]))
    assert len(run.predict(PIXELS[:0])) == 0


@pytest.mark.parametrize("channels", ["first", "last"])
def test_images_whose_sizes_are_all_equal_have_their_channels_where_the_run_had_them(
    channels: str, tmp_path: Path
) -> None:
    cubes = PIXELS[:, :3, :3]
    run = ml(dataset=(cubes, WORDS), channels=channels, path=tmp_path / "run", **QUIET)
    rows = torch.from_numpy(cubes.transpose(0, 3, 1, 2) if channels == "last" else cubes)
    space = run.spec.obs
    obs = (rows.float() - space.mean.view(-1, 1, 1)) / space.stddev.view(-1, 1, 1)
    with torch.no_grad():
        expected = run.agent(obs)
    torch.testing.assert_close(run(cubes), expected)
    torch.testing.assert_close(antelope.load(tmp_path / "run")(cubes), expected)


def test_pictures_are_decoded_as_in_training(
    runs: dict[str, tuple[Run, Any]], photos: Path
) -> None:
    run, _ = runs["pictures"]
    files = sorted(photos.rglob("*.png"))
    each = torch.cat([run(file) for file in files])
    torch.testing.assert_close(run(photos), each)
    torch.testing.assert_close(run([str(file) for file in files]), each)
    torch.testing.assert_close(run([Image.open(file) for file in files]), each)
    with pytest.raises(DataError, match="does not exist"):
        run.predict(photos / "eel.png")


def test_inputs_that_are_read_in_parts_have_the_outputs_of_the_whole(
    runs: dict[str, tuple[Run, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {name: [inputs] for name, (_, inputs) in runs.items()}
    given["dict"] += [[{"a": a, "b": b} for a, b in zip(FAR, TOKENS, strict=True)]]
    given["pixels"] += [Pairs()]
    whole = {name: runs[name][0](inputs[0]) for name, inputs in given.items()}
    monkeypatch.setattr("antelope.launcher.inference.predicting.rows_at_once", lambda *_: 7)
    for name, forms in given.items():
        for inputs in forms:
            torch.testing.assert_close(runs[name][0](inputs), whole[name])


def test_a_model_of_grey_pictures_refuses_colours() -> None:
    run = ml(dataset="Digits", plot=False, progress=False, train_steps=1)
    grey = Image.fromarray(np.full((8, 8), 7, dtype=np.uint8))
    assert torch.equal(run(grey.convert("RGB")), run(np.asarray(grey)))
    with pytest.raises(DataError, match=r"has colours .*convert\('L'\)"):
        run.predict(Image.new("RGB", (8, 8), "red"))


class Pairs(Dataset[Any]):
    def __len__(self) -> int:
        return len(PIXELS)

    def __getitem__(self, i: int) -> Any:
        return PIXELS[i], i


def test_data_sets_and_loaders_are_read_without_their_targets(
    runs: dict[str, tuple[Run, Any]],
) -> None:
    run, _ = runs["pixels"]
    images = torch.from_numpy(PIXELS)
    alone = TensorDataset(images)
    for source in (Pairs(), Pairs, alone, DataLoader(alone, 7), (PIXELS, WORDS)):
        assert torch.equal(run(source), run(PIXELS))


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("pixels", PIXELS / 255, "are float64, from 0 to 1. The run was trained on uint8"),
        ("pixels", PIXELS[:, :4], r"have shape \[60, 4, 6, 3\].*Give \[N, 3, 8, 6\] or"),
        ("pixels", {"a": PIXELS}, "are a dict"),
        ("pixels", None, "are a NoneType"),
        ("tokens", TOKENS + 20, r"integers from 0 to 29, and its model knows no others"),
        ("tokens", TOKENS / 2, "are float64"),
        ("far", FAR.astype(np.uint8), "are uint8"),
        ("far", np.full((2, 4), np.nan), r"The inputs hold NaN or infinite numbers in 2 of 2 rows"),
        ("far", np.full((2, 4), 1e300), r"hold numbers too large for float32, from 1e\+300 to"),
        ("far", (FAR[0], FAR[1]), r"a pair of arrays \[4\]: two inputs, or one with its target"),
        ("far", torch.from_numpy(FAR).to_sparse(), r"Part of the inputs is sparse.*to_dense"),
        ("far", "far.csv", "does not exist"),
        ("far", __file__, r"is not a picture, .* Arrays are read from \.npy"),
    ],
)
def test_inputs_of_another_kind_are_refused(
    runs: dict[str, tuple[Run, Any]], name: str, inputs: object, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        runs[name][0].predict(inputs)


def test_a_memory_mapped_file_is_read_in_parts(
    runs: dict[str, tuple[Run, Any]], tmp_path: Path
) -> None:
    run, _ = runs["pixels"]
    np.save(tmp_path / "images.npy", PIXELS)
    np.savez(tmp_path / "images.npz", inputs=PIXELS, targets=WORDS)
    for file in ("images.npy", "images.npz"):
        assert torch.equal(run(tmp_path / file), run(PIXELS))


def test_the_inputs_among_several_arrays_of_a_file_are_known_by_their_names(
    runs: dict[str, tuple[Run, Any]], tmp_path: Path
) -> None:
    run, _ = runs["pixels"]
    file = tmp_path / "arrays.npz"
    for name in ("inputs", "x", "X", "x_test"):
        np.savez(file, **{"a": WORDS, name: PIXELS})
        assert torch.equal(run(file), run(PIXELS))
    np.savez(file, PIXELS, WORDS)
    assert torch.equal(run(file), run(PIXELS))
    np.savez(file, a=PIXELS, b=WORDS)
    with pytest.raises(DataError, match="holds a, b: name the inputs `inputs`"):
        run(file)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Runs over Digits as five tasks, with strategies that predict and without."""
    folder = tmp_path_factory.mktemp("split")
    options = {**QUIET, "dataset": "Digits", "tasks": 5, "model": Net}
    chosen = {"plain": None, "icarl": "icarl", "pnn": "pnn", "packnet": "packnet", "own": Inverse}
    return {
        name: ml(strategy=strategy, path=folder / name, **options)
        for name, strategy in chosen.items()
    }


class Inverse(Strategy):
    """Predicts what the model finds least likely."""

    def predict(self, agent: nn.Module, obs: Tensor, task: int | None) -> Tensor:
        return -agent(obs)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["plain", "icarl", "pnn", "packnet", "own"])
def test_strategies_predict_after_loading_as_before(split: dict[str, Run], name: str) -> None:
    run = split[name]
    given = {"strategy": Inverse} if name == "own" else {}
    loaded = antelope.load(run.path, model=Net, **given)
    assert torch.equal(loaded("Digits"), run("Digits"))
    assert torch.equal(loaded("Digits", task=1), run("Digits", task=1))
    evaluated = run.evaluate()
    assert loaded.evaluate() == evaluated
    assert all(run.metrics[key] == evaluated[key] for key in run.metrics.keys() & evaluated)


def test_only_the_classes_of_a_known_task_compete(split: dict[str, Run]) -> None:
    run = split["plain"]
    assert set(run.predict("Digits", task=1)) <= {2, 3}
    assert not run.predict_proba("Digits", task=1)[:, [0, 1, 4, 5, 6, 7, 8, 9]].any()
    unknown: tuple[Any, ...] = (5, -1, True, 1.0, "1")
    for task in unknown:
        with pytest.raises(ConfigError, match="Digits has tasks 0 to 4"):
            run.predict("Digits", task=task)


def test_outputs_for_later_classes_are_never_predicted(tmp_path: Path) -> None:
    run = ml(dataset=(PIXELS, WORDS), num_classes=6, model=Net, path=tmp_path / "run", **QUIET)
    known = run(PIXELS)[:, :3]
    np.testing.assert_allclose(run.predict_proba(PIXELS)[:, :3], known.softmax(1), rtol=1e-5)
    assert not run.predict_proba(PIXELS)[:, 3:].any()
    names = np.array(["cat", "dog", "eel"])
    assert np.array_equal(run.predict(PIXELS), names[known.argmax(1)])


def test_a_strategy_of_the_users_that_predicts_has_to_be_named(split: dict[str, Run]) -> None:
    with pytest.raises(ConfigError, match=r"Name it here: strategy=Inverse"):
        antelope.load(split["own"].path, model=Net)


def test_averaged_weights_predict() -> None:
    run = ml(model=Net, dataset=(PIXELS, WORDS), ema=0.5, **QUIET)
    assert run.evaluate() == run.metrics
    assert torch.equal(antelope.load(run.path, model=Net)(PIXELS), run(PIXELS))


def test_what_cannot_predict_says_what_to_do_instead(runs: dict[str, tuple[Run, Any]]) -> None:
    run, _ = runs["pixels"]
    with pytest.raises(ConfigError, match=r"is a copy .* antelope\.load\("):
        copy.copy(run).predict(PIXELS)
    with pytest.raises(ConfigError, match=r"Call run\.predict\(inputs\)"):
        run.act(PIXELS[0])
    short = {"plot": False, "progress": False, "train_steps": 8, "eval_episodes": 0}
    acting = ml(env="CartPole-v1", agent="DQN", seed_steps=4, **short)
    with pytest.raises(ConfigError, match=r"learnt in CartPole-v1. Call run\.act"):
        acting.predict(np.zeros((2, 4)))


def test_columns_of_a_data_frame_are_matched_by_name(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"a": np.arange(30.0), "b": np.arange(30.0) % 7})
    turned, values = frame[["b", "a"]], frame["a"].to_numpy()
    settings = {**QUIET, "dataset": (frame, values), "path": tmp_path / "run"}
    run = ml(**settings)
    expected = run.predict(frame)
    assert np.array_equal(run.predict(turned), expected)
    assert np.array_equal(antelope.load(run.path).predict(turned), expected)
    assert np.array_equal(run.predict(frame.to_numpy()), expected)
    assert np.array_equal(run.predict(turned.iloc[9]), run.predict(frame[9:10]))
    numbered = frame.set_axis([0, 1], axis=1)
    assert np.array_equal(run.predict(numbered), expected)
    assert run.evaluate((numbered, values)) == run.evaluate((frame, values))
    with pytest.raises(DataError, match=r"lack the column 'b'\. The run was trained on .* a, b"):
        run.predict(frame.rename(columns={"b": "c"}))
    with pytest.raises(DataError, match="in another order: b, a"):
        run.evaluate((turned, values))
    with pytest.raises(DataError, match="in another order: b, a"):
        ml(**settings, test_dataset=(turned, values))
    other = frame.rename(columns={"b": "c"})
    with pytest.raises(DataError, match=r"columns a, b, arrays has a, c\. Give it the same"):
        run.evaluate((other, values))
    with pytest.raises(DataError, match="the columns a, b, its held-out part has a, c"):
        ml(**settings, test_dataset=(other, values))


def test_columns_that_pandas_numbered_are_matched_by_number(tmp_path: Path) -> None:
    rows = np.stack([np.arange(30.0), np.arange(30.0) % 7], 1)
    frame, values = pandas.DataFrame(rows), rows[:, 0]
    turned, named = frame[[1, 0]], frame.set_axis(["a", "b"], axis=1)
    run = ml(**QUIET, dataset=(frame, values), path=tmp_path / "frame")
    expected = run.predict(rows)
    in_array = ml(**QUIET, dataset=(rows, values), path=tmp_path / "array")
    for used in (run, antelope.load(run.path), in_array):
        for given in (frame, turned, named):
            assert np.array_equal(used.predict(given), expected)
        assert used.evaluate((named, values)) == used.evaluate((frame, values))
        with pytest.raises(DataError, match=r"columns 0, 1, arrays has .* in another order: 1, 0"):
            used.evaluate((turned, values))
    of_turned = ml(**QUIET, dataset=(turned, values), path=tmp_path / "turned")
    assert np.array_equal(of_turned.predict(frame), of_turned.predict(turned))
    with pytest.raises(DataError, match=r"columns 1, 0, arrays has .* in another order: 0, 1"):
        of_turned.evaluate((frame, values))
    expected = of_turned.evaluate((turned, values))
    assert of_turned.evaluate((turned.to_numpy(), values)) == expected


def test_columns_of_a_data_frame_in_a_dict_are_matched_by_name(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"a": np.arange(30.0), "b": np.arange(30.0) % 7})
    turned, values = frame[["b", "a"]], frame["a"].to_numpy()
    more = np.ones((30, 2), np.float32)
    settings = {**QUIET, "dataset": ({"x": frame, "more": more}, values), "path": tmp_path / "run"}
    run = ml(**settings)
    expected = run.predict({"x": frame, "more": more})
    for used in (run, antelope.load(run.path)):
        assert np.array_equal(used.predict({"x": turned, "more": more}), expected)
    with pytest.raises(DataError, match=r"the columns a, b in `x`, arrays has .*order: b, a"):
        run.evaluate(({"x": turned, "more": more}, values))


@pytest.mark.parametrize("kind", [float, int])
def test_targets_that_are_data_frames_have_one_order_of_columns(kind: type, tmp_path: Path) -> None:
    """Labels of 0 and 1, and values alike."""
    targets = pandas.DataFrame({"a": np.arange(30) % 2, "b": 1})
    targets = targets if kind is int else targets + 0.5
    inputs, turned = np.ones((30, 2), np.float32), targets[["b", "a"]]
    settings = {**QUIET, "dataset": (inputs, targets), "path": tmp_path / "run"}
    run = ml(**settings)
    with pytest.raises(DataError, match=r"the columns a, b, arrays has .* in another order: b, a"):
        antelope.load(run.path).evaluate((inputs, turned))
    with pytest.raises(DataError, match="in another order: b, a"):
        ml(**settings, test_dataset=(inputs, turned))


def test_paths_may_be_an_array_or_a_column(runs: dict[str, tuple[Run, Any]], photos: Path) -> None:
    run, _ = runs["pictures"]
    files = [str(file) for file in sorted(photos.glob("*/*.png"))]
    expected = run(files)
    for column in (np.array(files), np.array(files, dtype=object), pandas.Series(files)):
        assert torch.equal(run(column), expected)
    with pytest.raises(DataError, match="does not exist"):
        run.predict(np.array(["missing.png"]))


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("source", ["ImageFolder", "folder"])
def test_a_file_is_turned_as_the_pictures_of_the_training_were(
    tmp_path: Path, source: str, cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cached:
        monkeypatch.setattr("antelope.envs.decoded._WORTH_S", 0.0)
    exif = Image.Exif()
    exif[0x0112] = 6  # A quarter turn, which torchvision's data sets do not apply.
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(4):
            picture = Image.fromarray(RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            picture.save(tmp_path / "photos" / name / f"{i}.png", exif=exif)
    folder = tmp_path / "photos"
    data = ImageFolder(folder) if source == "ImageFolder" else str(folder)
    run = ml(model=Net, dataset=data, path=tmp_path / "run", data_dir=tmp_path, **QUIET)
    files = sorted(folder.glob("*/*.png"))
    stored = torch.stack([torch.from_numpy(np.array(Image.open(f).convert("RGB"))) for f in files])
    as_trained = stored if source == "ImageFolder" else stored.rot90(-1, (1, 2))
    for used in (run, antelope.load(run.path, model=Net)):
        assert torch.equal(used(files), used(as_trained))
