"""A table's columns become numbers and categories, by its training rows; its target, classes or values."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from pyarrow import feather

from antelope import ConfigError, DataError
from antelope.envs.arrays import Arrays, held_out_fifth
from antelope.envs.table_world import TableWorld
from antelope.launcher.assembly.data import build_data
from antelope.launcher.settings.compose import compose
from antelope.launcher.settings.plan import make_plan

N = 40


def read(*words: str, **settings: Any) -> TableWorld:
    """The data of a run with these settings."""
    return build_data(make_plan(compose(words, settings)))


def rows(world: TableWorld, part: str = "train") -> Any:
    """The inputs that a world's table holds."""
    return getattr(world, part).columns["obs"]


@pytest.fixture
def table() -> pd.DataFrame:
    """Forty rows of two numbers and a class."""
    stream = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "width": stream.normal(5, 2, N),
            "age": stream.integers(0, 90, N),
            "kind": np.where(np.arange(N) % 3 == 0, "cat", "dog"),
        }
    )


@pytest.fixture
def words(table: pd.DataFrame) -> pd.DataFrame:
    """Forty rows of two categories, and a value."""
    city, job = np.arange(N) % 4, np.arange(N) % 3
    return pd.DataFrame(
        {
            "city": np.array(["Rome", "Bern", "Oslo", "Kyiv"])[city],
            "job": pd.Categorical.from_codes(job, ["nurse", "cook", "smith"]),
            "income": table["width"],
        }
    )


class TestForms:
    @pytest.mark.parametrize(
        "convert",
        [pl.from_pandas, lambda t: pl.from_pandas(t).lazy(), pa.Table.from_pandas],
        ids=["polars", "lazy", "arrow"],
    )
    def test_a_table_of_any_library_gives_the_same_rows(
        self, table: pd.DataFrame, convert: Callable[[Any], Any]
    ) -> None:
        first, other = (read(dataset=data, target="kind") for data in (table, convert(table)))
        assert torch.equal(rows(first), rows(other))
        assert other.spec.action.names == ("cat", "dog")

    @pytest.mark.parametrize(
        "file", ["t.csv", "t.tsv", "t.csv.gz", "t.parquet", "t.jsonl", "t.arrow", "t.feather"]
    )
    def test_a_file_gives_the_rows_of_its_table(
        self, table: pd.DataFrame, file: str, workdir: Path
    ) -> None:
        write = {
            "csv": lambda: table.to_csv(file, index=False),
            "gz": lambda: table.to_csv(file, index=False),
            "tsv": lambda: table.to_csv(file, index=False, sep="\t"),
            "parquet": lambda: table.to_parquet(file),
            "jsonl": lambda: table.to_json(file, orient="records", lines=True, double_precision=15),
            "arrow": lambda: feather.write_feather(table, file, compression="uncompressed"),
            "feather": lambda: feather.write_feather(table, file),
        }
        write[file.rpartition(".")[2]]()
        found, expected = read(f"dataset={file}", "target=kind"), read(dataset=table, target="kind")
        assert torch.allclose(rows(found), rows(expected), rtol=1e-6)
        assert torch.equal(found.train.columns["label"], expected.train.columns["label"])

    def test_numbers_are_learnt_like_the_same_array(self, learn: Any, table: pd.DataFrame) -> None:
        inputs = table[["width", "age"]].to_numpy()
        run = learn(dataset=table, target="kind")
        array = learn(dataset=(inputs, table["kind"].tolist()))
        assert run.metrics == array.metrics
        assert torch.equal(run.spec.obs.mean, array.spec.obs.mean)

    def test_bytes_stay_bytes(self) -> None:
        pixels = np.random.default_rng(0).integers(0, 255, (N, 3), np.uint8)
        world = read(dataset=pd.DataFrame(pixels).assign(y=np.arange(N) % 2), target="y")
        assert rows(world).dtype == torch.uint8

    def test_dates_and_times_are_seconds(self) -> None:
        days = pd.date_range("2020-01-01", periods=N, freq="D")
        data = pd.DataFrame({"day": days, "slept": pd.to_timedelta(range(N), "h"), "y": range(N)})
        data = data.astype({"y": float})
        world = read(dataset=data, test_dataset=data, target="y")
        assert world.spec.obs.mean[0] == pytest.approx(days.mean().timestamp())
        assert world.spec.obs.high <= days[-1].timestamp()

    def test_days_times_of_day_and_missing_durations_are_seconds_too(self) -> None:
        steps = range(N)
        data = pa.table(
            {
                "day": pa.array([18262 + i for i in steps], pa.date32()),
                "at": pa.array([60 * i for i in steps], pa.time32("s")),
                "took": pa.array([None if i % 2 else 2 * i for i in steps], pa.duration("s")),
                "y": pa.array([i / 2 for i in steps]),
            }
        )
        world = read(dataset=data, test_dataset=data, target="y", missing="mean")
        first = 18262 * 86400.0
        means = [first + 86400 * (N - 1) / 2, 60 * (N - 1) / 2, N - 2.0]
        assert world.spec.obs.mean.tolist() == pytest.approx(means)
        assert float(world.spec.obs.mean[0]) > first

    def test_row_numbers_that_pandas_saved_are_left_out_with_a_word(
        self, table: pd.DataFrame, workdir: Path
    ) -> None:
        table.to_csv("t.csv")
        world = read("dataset=t.csv", "target=kind")
        assert world.spec.obs.shape == (2,)
        assert "row numbers" in world.describe()

    def test_tables_in_a_list_are_a_sequence_that_shares_its_vocabulary(
        self, words: pd.DataFrame
    ) -> None:
        words["high"] = words.pop("income") > 5
        parts = [words[words["city"] < "L"], words[words["city"] > "L"]]
        world = read(dataset=parts, target="high")
        assert len(world.tasks) == 2
        assert world.spec.obs.nvec == (5, 4)  # Four cities in two tables, and an id for others.

    def test_columns_are_chosen_by_name(self, table: pd.DataFrame) -> None:
        assert read(dataset=table, target="kind", inputs="age").spec.obs.shape == (1,)
        assert read(dataset=table, target="kind", drop=["age"]).spec.obs.shape == (1,)


class TestCategories:
    def test_are_numbered_in_sorted_order_behind_an_id_for_others(
        self, words: pd.DataFrame
    ) -> None:
        world = read(dataset=words, test_dataset=words, target="income")
        assert rows(world).dtype == torch.int64
        expected = [sorted(set(words["city"])).index(city) + 1 for city in words["city"]]
        assert rows(world)[:, 0].tolist() == expected
        assert world.spec.obs.nvec == (5, 4)
        assert world.spec.obs.n == 5

    def test_that_training_rows_lack_are_0_and_mentioned(self, words: pd.DataFrame) -> None:
        test = words[["income", "job", "city"]][:5].copy()
        test.loc[:1, "city"] = "Lima"
        world = read(dataset=words, test_dataset=test, target="income")
        assert rows(world, "test")[:, 0].tolist()[:2] == [0, 0]
        assert rows(world, "test")[2, 0] > 0
        assert (
            "2 held-out rows have categories that no training row has (`city`)" in world.describe()
        )

    def test_of_the_held_out_fifth_do_not_enter_the_vocabulary(self, words: pd.DataFrame) -> None:
        words["city"] = words["city"].astype(object)
        _, out = held_out_fifth(Arrays(torch.empty(N, 1), torch.empty(N), "x"))
        words.loc[int(out[0]), "city"] = "Lima"
        world = read(dataset=words, target="income")
        assert world.spec.obs.nvec == (5, 4)
        assert rows(world, "test")[0, 0] == 0

    def test_may_be_numbers_that_the_settings_name(self, table: pd.DataFrame) -> None:
        data = pd.DataFrame({"zone": np.arange(N) % 3, "y": table["width"]})
        assert read(dataset=data, target="y", categories="zone").spec.obs.nvec == (4,)
        assert read(dataset=data, target="y").spec.obs.nvec == ()

    def test_stay_ids_although_inputs_are_standardised(self, words: pd.DataFrame) -> None:
        assert read(dataset=words, target="income", standardize=True).spec.obs.nvec == (5, 4)

    def test_are_embedded_by_the_default_agent(self, learn: Any, words: pd.DataFrame) -> None:
        means = words["city"].map({"Rome": 1.0, "Bern": -1.0, "Oslo": 5.0, "Kyiv": 2.0})
        data = pd.concat([words.assign(income=means)] * 10)
        run = learn(dataset=data, target="income", train_steps=300, model="AC2Agent")
        assert run.metrics["r2"] > 0.9


class TestTargets:
    def test_words_are_classes_with_names(self, table: pd.DataFrame) -> None:
        assert read(dataset=table, target="kind").spec.action.names == ("cat", "dog")

    def test_floats_are_values(self, table: pd.DataFrame) -> None:
        assert not read(dataset=table.drop(columns="kind"), target="width").spec.discrete

    def test_several_columns_are_values(self, table: pd.DataFrame) -> None:
        world = read(
            dataset=table[["width", "age"]].assign(x=1.0 * table["age"] ** 2),
            target=["width", "age"],
        )
        assert world.spec.action.shape == (2,)

    def test_several_columns_are_in_the_order_of_their_names(self, table: pd.DataFrame) -> None:
        data = table.assign(x=1.0 * table["age"] ** 2)[["age", "x", "width"]]
        world = read(dataset=data, test_dataset=data, target=["width", "age"])
        expected = torch.from_numpy(data[["width", "age"]].to_numpy()).float()
        torch.testing.assert_close(world.train.columns["label"].float(), expected)

    def test_truth_values_are_classes_or_as_the_settings_say_values(
        self, table: pd.DataFrame
    ) -> None:
        data = table[["width", "age"]].assign(old=table["age"] > 40)
        assert read(dataset=data, target="old").spec.action.n == 2
        assert read(dataset=data, target="old", target_type="values").spec.action.kind == "values"

    def test_many_whole_numbers_are_amounts_or_classes(self, table: pd.DataFrame) -> None:
        data = table.drop(columns="kind")
        with pytest.raises(DataError, match="Set target_type=values for regression, or"):
            read(dataset=data, target="age")
        assert not read(dataset=data, target="age", target_type="values").spec.discrete
        assert read(
            dataset=data, test_dataset=data, target="age", target_type="classes"
        ).spec.discrete


class TestMistakes:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                {},
                "Which column of the table is to be predicted. Set target=NAME. Its columns are `width`",
            ),
            ({"target": "kinds"}, "no such column. Did you mean `kind`"),
            ({"target": "kind", "inputs": ["kind", "age"]}, "is both in target= and in inputs="),
            ({"target": "kind", "drop": ["agee"]}, "drop=agee: .* Did you mean `age`"),
            ({"target": "kind", "drop": ["age", "width"]}, "no column beside the target"),
            ({"target": "kind", "target_type": "values"}, "holds words, so target_type=values"),
            ({"target": ["kind", "age"]}, "there are no numbers in `kind`"),
            ({"target": "kind", "dataset.sep": ";"}, "A table has no argument `sep`"),
        ],
    )
    def test_in_settings_are_answered_with_the_columns(
        self, table: pd.DataFrame, settings: dict[str, Any], message: str
    ) -> None:
        with pytest.raises((ConfigError, DataError), match=message):
            read(dataset=table, **settings)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                lambda t: t.assign(name=[f"n{i}" for i in range(N)]),
                r"`name` .*32 different values in 32 rows.*drop=\[name\]",
            ),
            (
                lambda t: t.assign(x=[1.0, None] * 20, y=[None, None, "a", "b"] * 10),
                r"missing values: `x` \d+, `y` \d+ of 32 rows.*missing=mean",
            ),
            (lambda t: t.assign(x=None), "`x` of the table is empty: drop=.x."),
            (
                lambda t: t.assign(x=["1,5", "2,5", "3", "4"] * 10),
                "holds numbers as words .'1,5'.*categories=.x.",
            ),
            (
                lambda t: t.assign(x=["1", "2", "3", "4", "5", "?", "7", "8"] * 5),
                "numbers as words, beside '.'.*to_numeric",
            ),
            (
                lambda t: t.assign(x=["?", *(f"{i}.5" for i in range(1, N))]),
                "numbers as words, beside '.'.*to_numeric",
            ),
            (
                lambda t: t.assign(x=["1,500", "12,000", "400", "1,200,000"] * 10),
                r"numbers as words .*thousands=','.*If they are decimal: convert it",
            ),
            (
                lambda t: t.assign(x=pd.cut(t["width"], 4)),
                "`x` of the table holds dictionary.*interval.*neither numbers nor words",
            ),
            (
                lambda t: pl.from_pandas(t).with_columns(pl.col("age").cast(pl.Int128)),
                "a type that Arrow lacks .*cast",
            ),
            (lambda t: t.assign(x=[1, "a"] * 20), r"several types: `x` \(int, str\)"),
            (
                lambda t: t.assign(x=[[1, 2]] * N),
                "`x` of the table holds list.*neither numbers nor words",
            ),
            (
                lambda t: t.assign(x=np.inf),
                "`x` of the table holds infinite numbers in 32 of 32 rows",
            ),
            (
                lambda t: t.assign(x=pd.arrays.SparseArray([0, 1] * 20)),
                "`x` of the table are sparse.*to_dense",
            ),
            (lambda t: t.rename(columns={"age": "width"}), "several columns called `width`"),
            (lambda t: pd.concat({"a": t}, axis=1), "have 2 levels"),
            (
                lambda t: t.assign(kind=[None, "a"] * 20),
                "target of the table is missing: `kind` in 20 of 40",
            ),
            (lambda t: t[:0], "The table is empty"),
        ],
    )
    def test_in_the_table_are_named_with_their_column(
        self, table: pd.DataFrame, change: Callable[[Any], Any], message: str
    ) -> None:
        with pytest.raises(DataError, match=message):
            read(dataset=change(table), target="kind")

    def test_in_several_columns_are_reported_at_once(self, table: pd.DataFrame) -> None:
        data = table.assign(a=[1.0, None] * 20, b=[f"n{i}" for i in range(N)])
        with pytest.raises(DataError, match=r"missing values: `a`(.|\n)*`b` of the table has"):
            read(dataset=data, target="kind")

    @pytest.mark.parametrize(
        ("text", "words", "message"),
        [
            ("a;b\n1,5;2\n", [], "separated by ';'. Set dataset.sep=';' .and dataset.decimal"),
            ("a,b\n1,2\n1,2,3\n", [], "Its rows differ in length"),
            ("a,b\n", [], "has no rows"),
            ("a,b\n1,2\n", ["dataset.target=b"], "Set target=..., without `dataset.`"),
            ("a,b\n1,2\n", ["dataset.separator=x"], "no argument `separator`. Did you mean `sep`"),
            ("a,a\n1,2\n", [], "several columns called `a`"),
            (
                "a,b\n1,?\n2,1\n3,2\n4,3\n5,5\n6,6\n7,9\n",
                ["target=a", "target_type=values"],
                "dataset.na_values='.'",
            ),
        ],
    )
    def test_in_a_file_say_what_to_set(
        self, text: str, words: list[str], message: str, workdir: Path
    ) -> None:
        Path("t.csv").write_text(text)
        with pytest.raises((ConfigError, DataError), match=message):
            read("dataset=t.csv", *words)

    def test_are_no_long_rows(self, workdir: Path) -> None:
        row = json.dumps({"note": "x" * 2**21, "x": 1, "y": 0.5})
        Path("t.jsonl").write_text(f"{row}\n" * 9)
        assert read("dataset=t.jsonl", "target=y", "drop=note").spec.obs.shape == (1,)

    def test_in_the_encoding_of_a_file_say_what_to_set(self, workdir: Path) -> None:
        Path("t.csv").write_bytes("Stra\xdfe,y\nB\xf6,1.5\nA,2.5\n".encode("latin-1") * 3)
        with pytest.raises(DataError, match=r"dataset\.encoding=latin-1"):
            read("dataset=t.csv", "target=y")

    def test_in_the_name_of_a_file_name_a_near_one(self, workdir: Path) -> None:
        Path("train.csv").write_text("a,b\n1,2\n")
        with pytest.raises(ConfigError, match=r"no file trian\.csv .*Did you mean `train.csv`"):
            read("dataset=trian.csv", "target=a")

    @pytest.mark.parametrize(
        ("file", "message"),
        [
            ("t.xlsx", r"a spreadsheet: save it as \.csv"),
            ("t.json", r"save a table as \.jsonl"),
            ("clip.wav", r"holds audio.*Make arrays of it first, such as spectrograms"),
            ("clip.mp4", r"holds video.*such as frames \[steps, C, H, W\]"),
        ],
    )
    def test_in_the_kind_of_a_file_say_what_to_do(
        self, file: str, message: str, workdir: Path
    ) -> None:
        Path(file).write_bytes(b"")
        with pytest.raises(ConfigError, match=message):
            read(f"dataset={file}", "target=y")

    def test_are_folders_of_sound_and_torchvisions_films(self, workdir: Path) -> None:
        for name in ("dog", "cat"):
            (workdir / "sounds" / name).mkdir(parents=True)
            (workdir / "sounds" / name / "1.wav").write_bytes(b"RIFF")
        with pytest.raises(DataError, match="sounds holds audio, which Antelope does not decode"):
            read("dataset=sounds")
        with pytest.raises(DataError, match="Kinetics holds video, which Antelope does not decode"):
            read("dataset=Kinetics")

    def test_are_settings_of_tables_where_there_is_none(self) -> None:
        with pytest.raises(
            ConfigError, match="target= is about columns, but the data is not a table"
        ):
            read("dataset=Digits", "target=y")

    def test_are_a_dialect_that_the_settings_name(self, workdir: Path) -> None:
        Path("t.csv").write_text("a;b;y\n" + "1,5;-;1\n2,5;3;0\n" * 10)
        world = read(
            "dataset=t.csv", "dataset.sep=';'", "dataset.decimal=','", "dataset.na_values='-'",
            "target=y", "missing=mean",
        )  # fmt: skip
        assert world.spec.obs.mean.tolist() == pytest.approx([2, 3], abs=0.3)
