"""What is read is what was written, or a `CheckpointError` that names what is wrong."""

from __future__ import annotations

import collections
import hashlib
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from antelope.launcher.record.checkpoint import KEEP, Checkpoints, find, read, write
from antelope.replay import CheckpointError

MODEL = "model.safetensors"
FILES = ("tensors.safetensors", "state.json", "manifest.json")
STATE = {"weight": torch.arange(6.0).view(2, 3), "step": 7, "name": "x"}


def trip(state: dict[str, Any], folder: Path) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(dir=folder))
    write(folder, state)
    return read(folder)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.integers() | st.sampled_from(["$tensor", "$dict"]), inner)
        | st.tuples(inner, inner)
    ),
    max_leaves=10,
)


class TestRoundTrip:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
    @given(st.dictionaries(st.text(), plain, max_size=3))
    def test_of_nested_plain_values(self, tmp_path: Path, state: dict[str, Any]) -> None:
        # repr tells 1 from True and 1.0, and a tuple from a list, at every depth.
        assert repr(trip(state, tmp_path)) == repr(state)

    def test_of_numbers_that_json_does_not_have(self, tmp_path: Path) -> None:
        state = {"a": math.nan, "b": [math.inf, (-math.inf,)], "c": {math.nan: np.float32("inf")}}
        write(tmp_path, state)
        assert repr(read(tmp_path)) == repr({**state, "c": {math.nan: math.inf}})
        json.loads((tmp_path / "state.json").read_text(), parse_constant=pytest.fail)

    @pytest.mark.parametrize(
        "dtype",
        [
            *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
            *(torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool, torch.complex64),
        ],
    )
    @pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 1, 3)])
    def test_of_tensors(self, tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        tensor = torch.randint(0, 2, shape).to(dtype)
        restored = trip({"t": [tensor]}, tmp_path)["t"][0]
        assert (restored.dtype, restored.shape) == (dtype, shape)
        assert torch.equal(restored, tensor)

    def test_of_tensors_to_the_bit(self, tmp_path: Path) -> None:
        tensor = torch.tensor([math.nan, math.inf, -0.0, 1e-45, 0.1])
        restored = trip({"t": tensor}, tmp_path)["t"]
        assert restored.numpy().tobytes() == tensor.numpy().tobytes()

    def test_of_views_and_parameters(self, tmp_path: Path) -> None:
        matrix = torch.arange(9.0).view(3, 3)
        state = {
            "matrix": matrix,
            "turned": matrix.t(),  # The same memory and shape, read in another order.
            "row": matrix[1],
            "top": matrix[:2],  # Begins where the matrix does, with its strides.
            "expanded": torch.ones(1).expand(3),
            "parameter": torch.nn.Parameter(matrix.clone()),
        }
        restored = trip(state, tmp_path)
        assert all(torch.equal(restored[name], tensor) for name, tensor in state.items())
        assert not restored["parameter"].requires_grad

    def test_of_one_memory_is_one_tensor_on_disk_and_two_afterwards(self, tmp_path: Path) -> None:
        shared = torch.zeros(100_000)
        write(tmp_path, {"a": shared, "b": shared})
        restored = read(tmp_path)
        assert (tmp_path / FILES[0]).stat().st_size < 500_000
        restored["a"].fill_(1)
        assert restored["b"].sum() == 0

    @pytest.mark.parametrize("shape", [(), (4,), (0, 2)])
    @pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "u1", "?"])
    def test_of_arrays(self, tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
        array = np.ones(shape, dtype)
        restored = trip({"a": array}, tmp_path)["a"]
        assert isinstance(restored, np.ndarray)
        assert (restored.dtype, restored.shape) == (array.dtype, shape)
        assert (restored == array).all()

    def test_of_arrays_that_are_views_or_read_only(self, tmp_path: Path) -> None:
        frozen = np.arange(3.0)
        frozen.flags.writeable = False
        state = {"back": np.arange(3)[::-1], "column": np.eye(3)[:, 1], "frozen": frozen}
        restored = trip(state, tmp_path)
        assert all((restored[name] == array).all() for name, array in state.items())

    def test_of_an_optimiser(self, tmp_path: Path) -> None:
        weight = torch.nn.Parameter(torch.ones(2))
        optimizer = torch.optim.AdamW([weight], lr=0.3, betas=(0.8, 0.9))
        weight.sum().backward()
        optimizer.step()
        assert repr(trip(optimizer.state_dict(), tmp_path)) == repr(optimizer.state_dict())

    def test_of_deques_gives_lists(self, tmp_path: Path) -> None:
        assert trip({"d": collections.deque([1, 2])}, tmp_path) == {"d": [1, 2]}

    def test_of_what_is_no_data_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="Cannot save a object"):
            write(tmp_path, {"x": object()})


def test_holds_data_alone(tmp_path: Path) -> None:
    write(tmp_path, STATE)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for name in FILES[:2]:
        digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert manifest["sha256"][name] == digest


class TestTheModelsOwnFile:
    def test_holds_what_the_state_refers_to_once_on_disk(self, tmp_path: Path) -> None:
        weight = torch.randn(50_000)
        write(tmp_path, {"agent": {"agent.w": weight}, "step": 1}, model={"w": weight})
        assert torch.equal(load_file(tmp_path / MODEL)["w"], weight)
        assert (tmp_path / FILES[0]).stat().st_size < 1000
        restored = read(tmp_path)
        assert torch.equal(restored["agent"]["agent.w"], weight)
        assert restored["step"] == 1

    def test_holds_tensors_of_shared_memory_under_every_name(self, tmp_path: Path) -> None:
        tied, half = torch.arange(4.0), torch.ones(3, 2, dtype=torch.bfloat16)
        model = {"a.weight": tied, "b.weight": tied, "half": half.t(), "none": torch.zeros(0, 2)}
        write(tmp_path, {"x": [tied, half.t()]}, model=model)
        own = load_file(tmp_path / MODEL)
        assert own.keys() == model.keys()
        for name, value in model.items():
            assert torch.equal(own[name], value)
            assert own[name].dtype == value.dtype
        assert all(
            torch.equal(a, b) for a, b in zip(read(tmp_path)["x"], (tied, half.t()), strict=True)
        )

    @pytest.mark.parametrize("model", [{}, {"unrelated": torch.zeros(2)}])
    def test_may_have_nothing_of_the_state(
        self, tmp_path: Path, model: dict[str, torch.Tensor]
    ) -> None:
        write(tmp_path, STATE, model=model)
        assert load_file(tmp_path / MODEL).keys() == model.keys()
        assert torch.equal(read(tmp_path)["weight"], STATE["weight"])

    def test_is_checked_as_the_other_files_are(self, tmp_path: Path) -> None:
        write(tmp_path, STATE, model={"w": STATE["weight"]})
        whole = (tmp_path / MODEL).read_bytes()
        (tmp_path / MODEL).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(CheckpointError, match=r"model\.safetensors does not match its SHA-256"):
            read(tmp_path)
        (tmp_path / MODEL).unlink()
        with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
            read(tmp_path)

    def test_names_of_other_files_are_not_followed(self, tmp_path: Path) -> None:
        write(tmp_path, STATE)
        manifest = json.loads((tmp_path / "manifest.json").read_text())
        for name in ("../outside", "/dev/zero", "more.txt"):
            more = {"sha256": {**manifest["sha256"], name: "0" * 64}}
            sizes = {"size": {**manifest["size"], name: 0}}
            (tmp_path / "manifest.json").write_text(json.dumps({**manifest, **more, **sizes}))
            with pytest.raises(CheckpointError, match=r"manifest\.json cannot be read"):
                read(tmp_path)


class TestDamage:
    @pytest.fixture
    def checkpoint(self, tmp_path: Path) -> Path:
        path = tmp_path / "000001"
        path.mkdir()
        write(path, STATE)
        return path

    def error(self, path: Path) -> str:
        with pytest.raises(CheckpointError) as raised:
            read(path)
        assert str(path) in str(raised.value)
        return str(raised.value)

    @pytest.mark.parametrize("name", FILES)
    def test_a_missing_file_is_named(self, checkpoint: Path, name: str) -> None:
        (checkpoint / name).unlink()
        assert name in self.error(checkpoint)

    @pytest.mark.parametrize("name", FILES)
    def test_any_truncation_is_found(self, checkpoint: Path, name: str) -> None:
        whole = (checkpoint / name).read_bytes()
        for length in (0, 1, len(whole) // 2, len(whole) - 1):
            (checkpoint / name).write_bytes(whole[:length])
            assert name in self.error(checkpoint)

    @pytest.mark.parametrize("name", FILES[:2])
    def test_any_flipped_bit_is_found(self, checkpoint: Path, name: str) -> None:
        whole = (checkpoint / name).read_bytes()
        for position in range(0, len(whole), max(1, len(whole) // 50)):
            flipped = bytearray(whole)
            flipped[position] ^= 1 << position % 8
            (checkpoint / name).write_bytes(flipped)
            assert "does not match its SHA-256" in self.error(checkpoint)

    def test_a_flipped_bit_of_the_manifest_is_found_or_harmless(self, checkpoint: Path) -> None:
        whole = (checkpoint / FILES[2]).read_bytes()
        for position in range(len(whole)):
            flipped = bytearray(whole)
            flipped[position] ^= 1
            (checkpoint / FILES[2]).write_bytes(flipped)
            try:
                restored = read(checkpoint)
            except CheckpointError:
                continue
            assert torch.equal(restored["weight"], STATE["weight"])

    @pytest.mark.parametrize(
        "manifest",
        [b"", b"[]", b"3", b"null", b"{}", b"\xff\xfe", b'{"format": 1, "sha256": 3}'],
    )
    def test_another_manifest_is_foreign(self, checkpoint: Path, manifest: bytes) -> None:
        (checkpoint / "manifest.json").write_bytes(manifest)
        self.error(checkpoint)

    def test_another_format_is_named(self, checkpoint: Path) -> None:
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        (checkpoint / "manifest.json").write_text(json.dumps({**manifest, "format": "other-9"}))
        assert "unknown checkpoint format: 'other-9'" in self.error(checkpoint)

    @pytest.mark.parametrize("state", [b"[]", b"{}", b"no json", b'{"state": {"$tensor": "9"}}'])
    def test_a_state_that_was_not_written_by_us_is_refused(
        self, checkpoint: Path, state: bytes
    ) -> None:
        # Its hash is right: whoever made it knew the form of a manifest, and no more.
        (checkpoint / "state.json").write_bytes(state)
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        manifest["sha256"]["state.json"] = hashlib.sha256(state).hexdigest()
        (checkpoint / "manifest.json").write_text(json.dumps(manifest))
        self.error(checkpoint)

    def test_pickles_are_not_opened(self, checkpoint: Path) -> None:
        torch.save({"weight": torch.zeros(1)}, checkpoint / "tensors.safetensors")
        assert "tensors.safetensors" in self.error(checkpoint)


class TestCheckpoints:
    def test_are_numbered_and_the_newest_are_kept(self, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        assert checkpoints.numbered() == []
        assert checkpoints.newest() == (None, [])
        saved = [checkpoints.save({"step": step}) for step in range(KEEP + 2)]
        assert [path.name for path in saved] == [f"{n:06d}" for n in range(1, KEEP + 3)]
        assert checkpoints.numbered() == saved[: -KEEP - 1 : -1]
        assert checkpoints.newest() == ({"step": KEEP + 1}, [])

    def test_fall_back_over_damaged_ones_and_name_them(self, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path)
        saved = [checkpoints.save({"step": step}) for step in range(3)]
        (saved[2] / "state.json").write_bytes(b"{}")
        (saved[1] / "manifest.json").unlink()
        state, problems = checkpoints.newest()
        assert state == {"step": 0}
        assert len(problems) == 2
        assert all(str(path) in text for path, text in zip(saved[:0:-1], problems, strict=True))
        (saved[0] / "tensors.safetensors").unlink()
        assert checkpoints.newest()[0] is None

    def test_half_written_ones_are_not_seen(self, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path)
        (tmp_path / "partial-000001").mkdir()
        (tmp_path / "partial-000001" / "state.json").write_text("half")
        assert checkpoints.newest() == (None, [])
        assert checkpoints.save({"step": 1}).name == "000001"
        assert [path.name for path in tmp_path.iterdir()] == ["000001"]

    def test_go_on_counting_after_a_damaged_one(self, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path)
        damaged = checkpoints.save({"step": 1})
        (damaged / "manifest.json").unlink()
        assert checkpoints.save({"step": 2}).name == "000002"
        assert checkpoints.newest()[0] == {"step": 2}


class TestFind:
    def test_takes_a_checkpoint_a_folder_of_them_or_a_run(self, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        first = checkpoints.save({"step": 1})
        checkpoints.save({"step": 2})
        assert find(first) == {"step": 1}
        assert find(tmp_path / "checkpoints") == {"step": 2}
        assert find(tmp_path) == {"step": 2}

    def test_says_what_it_wants_instead(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="holds no checkpoint"):
            find(tmp_path / "nowhere")

    def test_names_the_damage(self, tmp_path: Path) -> None:
        path = Checkpoints(tmp_path / "checkpoints").save({"step": 1})
        (path / "state.json").unlink()
        with pytest.raises(CheckpointError, match=r"state\.json cannot be read"):
            find(tmp_path)
