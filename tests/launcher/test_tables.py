"""Runs on tables: their inputs, resuming, and what is predicted after training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import antelope
from antelope import ConfigError, DataError, Run, ml

N = 60


class Embeds(nn.Module):
    """A user's model: an embedding for each column of categories, beside the numbers."""

    def __init__(self, spec: antelope.Spec) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(n, 3) for n in spec.obs["categories"].nvec)
        width = spec.obs["numbers"].shape[0] + 3 * len(self.embeddings)
        self.head = nn.Linear(width, spec.action.shape[0])

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        found = [part(ids) for part, ids in zip(self.embeddings, obs["categories"].T, strict=True)]
        return self.head(torch.cat([obs["numbers"], *found], 1))  # type: ignore[no-any-return]


@pytest.fixture
def table() -> pd.DataFrame:
    """Sixty rows of numbers, words and three classes, with values missing in both."""
    stream = np.random.default_rng(0)
    kind = np.arange(N) % 3
    table = pd.DataFrame(
        {
            "width": stream.normal(kind, 0.3),
            "age": stream.integers(0, 90, N).astype(float),
            "city": np.array(["Rome", "Bern", "Oslo"])[stream.integers(0, 3, N)],
            "kind": np.array(["cat", "dog", "eel"])[kind],
        }
    )
    table.loc[::5, "age"] = np.nan
    table.loc[1::7, "city"] = None
    return table


@pytest.fixture
def learn(tmp_path: Path) -> Any:
    def run(*words: str, **settings: Any) -> Run:
        usual = {"target": "kind", "epochs": 3, "plot": False, "progress": False}
        return ml(*words, **{**usual, "path": tmp_path / "run", **settings})

    return run


class TestMissingValues:
    def test_become_the_training_mean_or_a_category_of_their_own(
        self, learn: Any, table: pd.DataFrame
    ) -> None:
        run = learn(dataset=table, test_dataset=table, missing="mean")
        assert run.spec.obs["numbers"].shape == (2,)
        assert run.spec.obs["categories"].nvec == (5,)  # Others, three cities, and none.
        batch = run.replay.sample(N)
        missing = torch.tensor(table["age"].isna().tolist())[batch.index]
        # The mean of all is the mean of those that are there, so that it is 0 when standardised.
        assert batch.obs["numbers"][missing, 1].abs().max() < 1e-5
        none = torch.tensor(table["city"].isna().tolist())[batch.index]
        assert set(batch.obs["categories"][none, 0].tolist()) == {4}

    def test_may_be_flagged_by_further_numbers(self, learn: Any, table: pd.DataFrame) -> None:
        run = learn(dataset=table, test_dataset=table, missing="flag")
        assert run.spec.obs["numbers"].shape == (4,)
        assert run.spec.obs["numbers"].mean.tolist()[2:] == pytest.approx(
            [table["age"].isna().mean(), table["city"].isna().mean()]
        )

    def test_of_predicted_rows_are_filled_only_if_those_of_training_were(
        self, learn: Any, table: pd.DataFrame
    ) -> None:
        whole = table.dropna()
        filled, strict = (learn(dataset=whole, missing=how) for how in ("mean", None))
        assert len(filled.predict(table)) == N
        with pytest.raises(DataError, match="The table has missing values: `age` 12"):
            strict.predict(table)


class TestModels:
    def test_of_the_user_receive_numbers_and_categories(
        self, learn: Any, table: pd.DataFrame
    ) -> None:
        run = learn(dataset=table, missing="mean", model=Embeds, epochs=60, lr=0.1)
        assert run.metrics["accuracy"] > 0.8

    def test_learn_classes_in_turn_with_a_strategy(self, learn: Any, table: pd.DataFrame) -> None:
        run = learn(dataset=table, missing="mean", tasks=3, strategy="er")
        assert run.accuracy_matrix.shape == (3, 3)

    def test_learn_later_tables_by_the_first_ones_columns(
        self, learn: Any, table: pd.DataFrame
    ) -> None:
        first, second = table[table["kind"] != "eel"], table[table["kind"] == "eel"]
        run = learn(dataset=first, missing="mean", num_classes=3)
        run.learn_task(second[["kind", "city", "age", "width"]], "eels")
        assert len(run.accuracy_matrix) == 2
        assert run.spec.action.names == ("cat", "dog", "eel")
        assert set(run.predict(table)) <= {"cat", "dog", "eel"}

    def test_resume_to_the_bit(self, tmp_path: Path, table: pd.DataFrame) -> None:
        def run(name: str, **more: Any) -> Run:
            usual = {"target": "kind", "missing": "flag", "plot": False, "progress": False}
            return ml(dataset=table, path=tmp_path / name, **usual, **more)

        whole = run("whole", epochs=4)
        run("parts", epochs=2)
        rest = run("parts", epochs=4, resume=True)
        for name, value in whole.agent.state_dict().items():
            assert torch.equal(value, rest.agent.state_dict()[name]), name


class TestPredictions:
    def test_are_the_same_to_the_bit_in_another_process(
        self, learn: Any, table: pd.DataFrame, workdir: Path
    ) -> None:
        run = learn(dataset=table, missing="flag")
        table[["city", "kind", "width", "age"]].to_csv("rows.csv", index=False)
        table.to_csv("train.csv", index=False)
        script = (
            "import antelope, json, sys; run = antelope.load(sys.argv[1]); "
            "print(json.dumps(run.predict_proba('rows.csv').tolist()))"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(run.path)],
            capture_output=True,
            text=True,
            check=True,
        )
        found = np.array(json.loads(done.stdout), np.float32)
        expected = run.predict_proba(table)
        assert np.array_equal(found, expected)

    def test_are_for_frames_files_dicts_and_rows(
        self, learn: Any, table: pd.DataFrame, workdir: Path
    ) -> None:
        run = learn(dataset=table, missing="mean")
        expected = run.predict(table).tolist()
        table.to_parquet("rows.parquet")
        rows = table.drop(columns="kind").to_dict("records")
        assert run.predict("rows.parquet").tolist() == expected
        assert run.predict(rows).tolist() == expected
        assert run.predict(rows[1]).tolist() == expected[1:2]
        assert run.predict(table.iloc[1]).tolist() == expected[1:2]
        assert run.predict(dict(table.drop(columns="kind").items())).tolist() == expected

    def test_find_columns_by_name_and_mention_others(self, learn: Any, table: pd.DataFrame) -> None:
        run = learn(dataset=table, missing="mean")
        with pytest.warns(UserWarning, match="not trained with, and that are ignored: `more`"):
            found = run.predict(table.assign(more=1)[["more", "city", "width", "age"]])
        assert found.tolist() == run.predict(table).tolist()
        with pytest.raises(
            DataError, match="The table lacks `age`, which the model was trained on"
        ):
            run.predict(table.drop(columns="age"))
        with pytest.raises(DataError, match="give a data frame, a file or dicts with the columns"):
            run.predict(np.zeros((3, 3)))

    def test_can_be_scored_on_another_table(self, learn: Any, table: pd.DataFrame) -> None:
        run = learn(dataset=table, test_dataset=table, missing="mean")
        assert run.evaluate(table) == pytest.approx(run.metrics)
        with pytest.raises(ConfigError, match="The run learnt from a table"):
            run.evaluate("Digits")

    def test_of_a_run_on_a_file_need_no_settings(
        self, learn: Any, table: pd.DataFrame, workdir: Path
    ) -> None:
        table.to_csv("t.csv", index=False, sep=";", decimal=",")
        run = learn("dataset.sep=';'", "dataset.decimal=','", dataset="t.csv", missing="mean")
        loaded = antelope.load(run.path)
        assert loaded.predict("t.csv").tolist() == run.predict(table).tolist()
        assert loaded.evaluate() == run.metrics
