"""Hugging Face data sets are read through their Arrow columns: as tables, pictures, arrays and sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Array2D, ClassLabel, Dataset, DatasetDict, Features, Image, Value

import antelope
from antelope import ConfigError, DataError, ml
from antelope.envs import huggingface
from antelope.envs.table_world import TableWorld
from antelope.launcher.assembly.data import build_data
from antelope.launcher.settings.compose import compose
from antelope.launcher.settings.plan import make_plan

N = 20
NAMES = ["cat", "dog"]
LABELS = [i % 2 for i in range(N)]
PIXELS = np.random.default_rng(0).integers(0, 255, (N, 6, 5), np.uint8)


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def read(*words: str, **settings: Any) -> TableWorld:
    """The data of a run with these settings."""
    return build_data(make_plan(compose(words, settings)))


def rows(world: TableWorld, part: str = "train") -> Any:
    return getattr(world, part).columns["obs"]


def data(feature: Any, values: Any, name: str = "image", labels: Any = LABELS) -> Dataset:
    """A column of inputs, and one of classes with names."""
    features = Features({name: feature, "label": ClassLabel(names=NAMES)})
    return Dataset.from_dict({name: values, "label": labels}, features=features)


class TestColumns:
    def test_of_pictures_are_decoded_from_their_bytes(self) -> None:
        part = data(Image(), list(PIXELS))
        world = read(dataset=DatasetDict(train=part, test=part))
        assert torch.equal(rows(world), torch.from_numpy(PIXELS)[:, None])
        assert world.spec.action.names == ("cat", "dog")
        assert world.train.columns["label"].tolist() == LABELS
        assert torch.equal(rows(world), rows(world, "test"))

    def test_of_arrays_keep_their_bytes(self) -> None:
        part = data(Array2D((6, 5), "uint8"), PIXELS)
        world = read(dataset=part, test_dataset=part)
        assert rows(world).dtype == torch.uint8
        assert torch.equal(rows(world), torch.from_numpy(PIXELS)[:, None])

    def test_of_lists_of_one_length_are_an_array(self) -> None:
        values = np.random.default_rng(0).normal(size=(N, 3))
        part = data(datasets.Sequence(Value("float64")), values.tolist(), "x")
        assert torch.allclose(
            rows(read(dataset=part, test_dataset=part)).double(), torch.from_numpy(values)
        )

    def test_of_lists_of_different_lengths_are_sequences(self) -> None:
        values = [list(range(1, 2 + i % 4)) for i in range(N)]
        part = data(datasets.List(Value("int32")), values, "tokens")
        world = read(dataset=part, test_dataset=part)
        assert [row.tolist() for row in rows(world)] == values
        assert world.spec.obs.ragged

    def test_of_numbers_and_words_are_a_table(self) -> None:
        part = Dataset.from_dict({"age": [1.0, 2.0] * 10, "city": ["a", "b"] * 10, "y": [0.5] * N})
        world = read(dataset=part, target="y")
        assert set(world.spec.obs) == {"numbers", "categories"}

    def test_of_classes_among_the_inputs_are_categories(self, tmp_path: Path) -> None:
        kind = np.arange(N) % 3
        features = Features(
            {"kind": ClassLabel(names=["a", "b", "c"]), "label": ClassLabel(names=NAMES)}
        )
        part = Dataset.from_dict({"kind": kind, "label": LABELS}, features=features)
        settings = {"dataset": part, "target": "label"}
        assert read(**settings).spec.obs.ids == 4  # And one for unknown ones.
        run = ml(**settings, train_steps=20, plot=False, progress=False, path=tmp_path / "run")
        expected = run(part)
        assert torch.equal(run([{"kind": int(number)} for number in kind]), expected)
        assert torch.equal(antelope.load(run.path)({"kind": kind}), expected)

    def test_of_several_kinds_are_a_dict_by_name(self) -> None:
        part = data(Image(), list(PIXELS)).add_column("age", [1.0] * N)
        world = read(dataset=part, test_dataset=part)
        assert {name: space.shape for name, space in world.spec.obs.items()} == {
            "image": (1, 6, 5),
            "age": (),
        }

    def test_are_read_in_the_order_of_a_selection(self) -> None:
        part = data(Array2D((6, 5), "uint8"), PIXELS).select([3, 1, 2])
        world = read(dataset=part, test_dataset=part)
        assert torch.equal(rows(world)[:, 0], torch.from_numpy(PIXELS[[3, 1, 2]]))

    def test_of_words_as_target_are_classes(self) -> None:
        part = data(Array2D((6, 5), "uint8"), PIXELS).add_column("kind", ["b", "a"] * 10)
        world = read(dataset=part, target="kind", inputs="image")
        assert world.spec.action.names == ("a", "b")

    def test_are_those_that_the_format_lists(self) -> None:
        part = Dataset.from_dict({"x": [1.0, 2.0] * 10, "z": [3.0] * N, "label": LABELS})
        world = read(dataset=part.with_format("torch", columns=["x", "label"]))
        assert world.spec.obs.shape == (1,)


class TestParts:
    def test_are_train_and_test_or_without_its_labels_validation(self) -> None:
        part, hidden = (data(Array2D((6, 5), "uint8"), PIXELS, labels=[k] * N) for k in (1, -1))
        world = read(dataset=DatasetDict(train=part, test=hidden, validation=part.select([0])))
        assert len(rows(world, "test")) == 1
        assert "part test not used" in world.describe()

    @pytest.mark.parametrize("dict_of_parts", [True, False])
    def test_may_be_saved_on_disk(self, dict_of_parts: bool, workdir: Path) -> None:
        part = data(Array2D((6, 5), "uint8"), PIXELS)
        (DatasetDict(train=part, test=part) if dict_of_parts else part).save_to_disk("saved")
        world = read("dataset=saved")
        assert len(rows(world)) == (N if dict_of_parts else N - N // 5)

    def test_may_be_on_the_hub(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def load(*names: str, **arguments: Any) -> Dataset:
            asked.append((names, arguments))
            return data(Array2D((6, 5), "uint8"), PIXELS)

        monkeypatch.setattr(datasets, "load_dataset", load)
        read("dataset=hf:owner/pets/small", "dataset.revision=abc")
        assert asked == [(("owner/pets",), {"name": "small", "revision": "abc"})]

    def test_that_cannot_be_loaded_are_one_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def load(*_: str, **__: Any) -> Dataset:
            raise ConnectionError("no route to host")

        monkeypatch.setattr(datasets, "load_dataset", load)
        with pytest.raises(
            DataError, match=r"hf:pets could not be loaded \(ConnectionError: no route"
        ):
            read("dataset=hf:pets")


class TestMistakes:
    def test_of_text_say_how_to_encode_it(self) -> None:
        with pytest.raises(DataError, match=r"`text` of .* holds text.*tokenizer\(row\['text'\]\)"):
            read(dataset=data(Value("string"), ["a b"] * N, "text"))

    @pytest.mark.parametrize("kind", ["Audio", "Video"])
    def test_of_sound_and_film_say_that_arrays_are_needed(self, kind: str) -> None:
        # Not from_dict, which would encode: that needs further libraries.
        features = Features({"clip": getattr(datasets, kind)(), "label": ClassLabel(names=NAMES)})
        clips = pa.array([{"bytes": b"", "path": None}] * N, features["clip"].pa_type)
        table = pa.table({"clip": clips, "label": LABELS})
        part = Dataset(table, info=datasets.DatasetInfo(features=features))
        with pytest.raises(
            DataError, match=f"`clip` of .* holds {kind.lower()}.*Make arrays of it"
        ):
            read(dataset=part)

    def test_of_text_beside_pictures_say_to_leave_it_out(self) -> None:
        part = data(Image(), list(PIXELS)).add_column("text", ["a b"] * N)
        with pytest.raises(DataError, match=r"`text` .* or leave it out: drop=text\."):
            read(dataset=part)
        with pytest.raises(
            ConfigError, match="categories= is about the columns of a table, but the"
        ):
            read(dataset=part, categories="text")

    def test_of_a_transform_say_to_apply_it(self) -> None:
        part = data(Value("float64"), [1.0] * N).with_transform(lambda rows: rows)
        for given in (part, DatasetDict(train=part)):
            with pytest.raises(
                DataError, match=r"has a transform .* data\.with_format\(None\)\.map"
            ):
                read(dataset=given)

    @pytest.mark.parametrize(
        ("feature", "values"), [(Value("float64"), [1.0] * N), (Array2D((6, 5), "uint8"), PIXELS)]
    )
    def test_of_rows_without_a_label_say_to_leave_them_out(self, feature: Any, values: Any) -> None:
        part = data(feature, values, labels=[-1, *LABELS[1:]])
        with pytest.raises(DataError, match=r"label -1, .* data\.filter\(.*row\['label'\] >= 0"):
            read(dataset=part)

    def test_of_a_target_for_each_step_say_what_a_target_is(self) -> None:
        tags = [[1] * (i % 3) for i in range(N)]
        part = Dataset.from_dict({"x": [[1.0, 2.0]] * N, "tags": tags})
        with pytest.raises(
            DataError, match=r"target=tags .* lists of different lengths. A row has"
        ):
            read(dataset=part, target="tags")

    def test_of_a_stream_say_to_load_it(self) -> None:
        with pytest.raises(DataError, match=r"is a stream .*without streaming=True"):
            read(dataset=data(Value("int64"), LABELS).to_iterable_dataset())

    def test_of_parts_name_them(self) -> None:
        part = data(Value("int64"), LABELS)
        with pytest.raises(ConfigError, match=r"is the training data\? It has a, b. Give one as "):
            read(dataset=DatasetDict(a=part, b=part))

    def test_of_a_target_name_the_columns(self) -> None:
        part = Dataset.from_dict({"x": [1.0] * N, "y": [2.0] * N})
        with pytest.raises(ConfigError, match=r"Which column .*Its columns are `x`, `y`"):
            read(dataset=part)

    def test_of_a_broken_picture_name_its_row(self) -> None:
        part = data(Image(), [{"bytes": b"no picture", "path": None}] * N)
        with pytest.raises(
            DataError, match="Row 0 of `image` of the data set cannot be read as a picture"
        ):
            read(dataset=part)


class TestOutsideMemory:
    def test_pictures_of_a_selection_are_read_where_they_are(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        part = data(Image(), list(PIXELS)).shuffle(seed=0)
        expected = rows(read(dataset=part, test_dataset=part))
        copied: list[str] = []
        taken = huggingface._arrow

        def arrow(part: Dataset, columns: Any) -> Any:
            copied.extend(columns)
            return taken(part, columns)

        monkeypatch.setattr(huggingface, "_arrow", arrow)
        world = read(dataset=part, test_dataset=part, storage="mmap")
        assert torch.equal(rows(world)[:], expected)
        assert "image" not in copied

    def test_a_row_that_is_not_selected_may_be_empty(self) -> None:
        part = data(Array2D((6, 5), "uint8"), [None, *PIXELS[1:]]).select(range(N - 1, 0, -1))
        part = part.select([*range(0, N - 1, 2)])
        world = read(dataset=part, test_dataset=part, storage="mmap")
        assert torch.equal(rows(world)[:], rows(read(dataset=part, test_dataset=part)))
