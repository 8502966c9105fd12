"""AntelopeClassifier and AntelopeRegressor, as users of scikit-learn use them."""

from __future__ import annotations

import copy
import importlib
import os
import pickle
import random
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from antelope import AntelopeClassifier, AntelopeRegressor, ConfigError, load, ml

X, Y = load_digits(return_X_y=True)


class Net(nn.Module):
    def __init__(self, in_features: int, out_features: int, hidden: int = 32):
        super().__init__()
        layers = nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, out_features)
        self.layers = nn.Sequential(nn.Flatten(), *layers)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layers(obs)


class TestClassifier:
    def test_generalises_as_well_as_a_linear_model_of_scikit_learn(self) -> None:
        own = cross_val_score(AntelopeClassifier(Net, lr=3e-3, random_state=0), X, Y, cv=2)
        linear = make_pipeline(StandardScaler(), LogisticRegression())
        assert own.mean() > cross_val_score(linear, X, Y, cv=2).mean() - 0.03

    def test_trains_on_every_row(self) -> None:
        # The last of ten classes is in two rows only: a held-out fifth might hold both.
        rows = np.r_[np.flatnonzero(Y < 9)[:200], np.flatnonzero(Y == 9)[:2]]
        model = AntelopeClassifier(Net, epochs=60, lr=1e-2, random_state=0).fit(X[rows], Y[rows])
        assert model.score(X[rows], Y[rows]) == 1.0
        assert model.history_[-1]["accuracy"] == 1.0

    def test_predicts_words_and_their_probabilities_in_the_order_of_the_rows(self) -> None:
        words = np.array(["no", "yes"])[(Y > 4).astype(int)]
        model = AntelopeClassifier(epochs=3, random_state=0).fit(X, words)
        shares, again = model.predict_proba(X), np.random.default_rng(0).permutation(len(X))
        assert list(model.classes_) == ["no", "yes"]
        np.testing.assert_allclose(shares.sum(1), 1)
        assert (model.predict(X) == model.classes_[shares.argmax(1)]).all()
        np.testing.assert_allclose(model.predict_proba(X[again]), shares[again], atol=1e-6)

    def test_large_logits_are_probabilities_too(self) -> None:
        class Sure(Net):
            def forward(self, obs: Tensor) -> Tensor:
                return 1e4 * super().forward(obs)

        shares = AntelopeClassifier(Sure, epochs=1, random_state=0).fit(X, Y).predict_proba(X)
        np.testing.assert_allclose(shares.sum(1), 1)

    def test_uint8_images_stay_images(self, tmp_path: Path) -> None:
        class Convolutional(nn.Module):
            def __init__(self, in_channels: int, num_classes: int):
                super().__init__()
                body = nn.Conv2d(in_channels, 4, 3), nn.ReLU(), nn.Flatten()
                self.layers = nn.Sequential(*body, nn.Linear(4 * 36, num_classes))

            def forward(self, obs: Tensor) -> Tensor:
                return self.layers(obs)

        images = X.reshape(-1, 1, 8, 8).astype(np.uint8)
        quick: dict[str, Any] = {"epochs": 2, "lr": 1e-2, "random_state": 0}
        model = AntelopeClassifier(Convolutional, **quick, path=tmp_path / "run").fit(images, Y)
        assert model.score(images, Y) > 0.9
        assert load(tmp_path / "run", model=Convolutional).spec.obs.dtype == torch.uint8

    def test_whole_numbers_are_numbers_unless_they_are_said_to_be_ids(self) -> None:
        class Words(nn.Module):
            def __init__(self, num_embeddings: int, num_classes: int):
                super().__init__()
                self.table = nn.Embedding(num_embeddings, num_classes)

            def forward(self, obs: Tensor) -> Tensor:
                return self.table(obs).sum(1)

        words = np.random.default_rng(0).integers(0, 6, (300, 3))
        seen = (words == 5).any(1)
        as_ids = {"settings": {"standardize": False}, "epochs": 20, "lr": 0.1, "random_state": 0}
        assert AntelopeClassifier(Words, **as_ids).fit(words, seen).score(words, seen) > 0.98
        with pytest.raises(ConfigError, match="num_embeddings"):
            AntelopeClassifier(Words, epochs=1).fit(words, seen)


class TestRegressor:
    def test_generalises_on_a_data_frame_and_knows_its_columns(self) -> None:
        frame, values = load_diabetes(return_X_y=True, as_frame=True)
        model = AntelopeRegressor(epochs=20, random_state=0)
        assert cross_val_score(model, frame, values, cv=2).mean() > 0.4
        model.fit(frame[:50], values[:50])
        assert list(model.feature_names_in_) == list(frame.columns)
        assert model.predict(frame).shape == values.shape
        with pytest.raises(ValueError, match="feature names should match"):
            model.predict(frame.iloc[:, ::-1])

    def test_whole_numbers_are_values_and_columns_stay_columns(self) -> None:
        inputs = np.random.default_rng(0).normal(size=(200, 2))
        targets = np.stack([inputs[:, 0] * 3, inputs.sum(1)], 1).round().astype(int)
        model = AntelopeRegressor(epochs=40, lr=1e-2, random_state=0).fit(inputs, targets)
        assert model.predict(inputs[:3]).shape == (3, 2)
        assert model.score(inputs, targets) > 0.9


class TestParameters:
    @pytest.mark.parametrize("backend", ["threading", pytest.param("loky", marks=pytest.mark.slow)])
    def test_are_searched_within_a_pipeline_two_at_a_time(self, backend: str) -> None:
        pipeline = make_pipeline(StandardScaler(), AntelopeClassifier(Net, random_state=0))
        grid = {
            "antelopeclassifier__epochs": [1, 3],
            "antelopeclassifier__settings": [None, {"model.hidden": 4}],
        }
        found = []
        for n_jobs in (1, 2):
            search = GridSearchCV(pipeline, grid, cv=2, n_jobs=n_jobs, error_score="raise")
            with joblib.parallel_backend(backend):
                search.fit(X[:200], Y[:200])
            found.append(search.cv_results_["mean_test_score"].tolist())
        assert found[0] == found[1]
        assert search.best_params_ == {
            "antelopeclassifier__epochs": 3,
            "antelopeclassifier__settings": None,
        }

    def test_reach_the_run(self) -> None:
        settings = {"model.hidden": 7, "weight_decay": 0.5}
        model = AntelopeClassifier(Net, epochs=1, optim="SGD", lr=0.1, settings=settings)
        module = clone(model).fit(X[:50], Y[:50]).module_
        assert module.layers[1].out_features == 7

    def test_the_seed_decides_and_a_module_is_copied(self) -> None:
        module = Net(64, 10)
        before = copy.deepcopy(module.state_dict())
        models = [AntelopeClassifier(module, epochs=1, random_state=s).fit(X, Y) for s in (1, 1, 2)]
        one, same, other = (model.predict_proba(X[:20]) for model in models)
        assert (one == same).all()
        assert (one != other).any()
        assert all(torch.equal(w, before[name]) for name, w in module.state_dict().items())

    @pytest.mark.parametrize(
        ("parameters", "match"),
        [
            ({"settings": {"seed": 1, "dataset": "MNIST"}}, r"(?s)seed.*random_state.*fit\(X, y\)"),
            ({"settings": {"lr": 1}}, "a parameter of its own"),
            ({"settings": {"wieght_decay": 1}}, "Did you mean `weight_decay`"),
            ({"model": "Nett"}, "No model `Nett`"),
            ({"epochs": 0}, "epochs=0: expected int >= 1"),
            ({"settings": {"tasks": 2}}, "all of X"),
            ({"settings": {"strategy": "icarl"}}, "Net cannot be an estimator: strategy=icarl"),
        ],
    )
    def test_that_are_wrong_are_refused(self, parameters: dict[str, Any], match: str) -> None:
        with pytest.raises(ConfigError, match=match):
            AntelopeClassifier(**{"model": Net, "epochs": 1, **parameters}).fit(X, Y)


def test_one_class_is_no_classification() -> None:
    with pytest.raises(ValueError, match="y holds one class, 3"):
        AntelopeClassifier().fit(X[:5], np.full(5, 3))


def test_fitting_leaves_the_process_and_the_folder_as_they_were(
    workdir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    inputs, targets = X[:100].copy(), Y[:100].copy()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    threads, folders = threading.active_count(), set(os.listdir(tempfile.gettempdir()))
    AntelopeClassifier(Net, epochs=2, random_state=0).fit(inputs, targets).predict(inputs)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert threads == threading.active_count()
    assert not list(workdir.iterdir())
    new = set(os.listdir(tempfile.gettempdir())) - folders
    assert not {name for name in new if name.startswith("antelope-")}
    assert capfd.readouterr() == ("", "")
    assert (inputs == X[:100]).all()


def test_a_path_keeps_the_run(tmp_path: Path) -> None:
    AntelopeClassifier(Net, epochs=1, path=tmp_path / "run").fit(X[:100], Y[:100])
    assert {"config.yaml", "train.csv", "checkpoints"} <= set(os.listdir(tmp_path / "run"))


@pytest.mark.parametrize("model", [None, Net, "MLP"])
def test_a_fitted_estimator_is_pickled_without_its_data(model: Any) -> None:
    fitted = AntelopeClassifier(model, epochs=1, random_state=0).fit(X, Y)
    text = pickle.dumps(fitted)
    assert len(text) < X.nbytes / 2
    assert (pickle.loads(text).predict_proba(X) == fitted.predict_proba(X)).all()


@pytest.mark.parametrize("settings", [{}, {"standardize": False}])
def test_learns_and_predicts_what_ml_does(settings: dict[str, Any]) -> None:
    inputs, same = pd.DataFrame(X).to_numpy(), np.random.RandomState(3)
    fitted = AntelopeClassifier(Net, epochs=2, random_state=same, settings=settings).fit(inputs, Y)
    seed = int(np.random.RandomState(3).randint(2**31 - 1))
    quiet: dict[str, Any] = {"plot": False, "progress": False, "loggers": [], "seed": seed}
    data: dict[str, Any] = {"dataset": (X, Y), "test_dataset": (X, Y), **settings}
    with tempfile.TemporaryDirectory() as folder:
        run = ml(model=Net, **data, epochs=2, path=folder, **quiet)
        np.testing.assert_allclose(fitted.predict_proba(X), run.predict_proba(X), atol=1e-6)
    torch.testing.assert_close(fitted.module_.state_dict(), run.agent.state_dict(), rtol=0, atol=0)


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    monkeypatch.delitem(sys.modules, "antelope.launcher.estimators.sklearn")
    with pytest.raises(ConfigError, match=r"pip install 'antelope-ml\[sklearn\]'"):
        importlib.import_module("antelope.launcher.estimators.sklearn")


def test_columns_of_0_and_1_are_values_to_the_regressor() -> None:
    inputs = np.random.default_rng(0).normal(size=(100, 2))
    for targets in ((inputs > 0).astype(float), np.eye(2)[(inputs[:, 0] > 0).astype(int)]):
        regressor = AntelopeRegressor(epochs=15, lr=1e-2, random_state=0).fit(inputs, targets)
        assert np.abs(regressor.predict(inputs) - targets).max() < 1
