"""Which device a run takes, in which arithmetic it computes, and that nothing of it is left behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import ConfigError, ml
from antelope.launcher.assembly.device import arithmetic, build_device, describe
from antelope.launcher.settings.compose import compose
from antelope.replay.randomness import random_state, set_random_state

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
QUIET: dict[str, Any] = {"progress": False, "plot": False, "train_steps": 3}


def settings(*words: str) -> Any:
    return compose(words, {})


class TestChoice:
    def test_without_a_gpu_it_is_the_cpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert build_device(None) == CPU

    def test_a_gpu_that_does_not_work_is_passed_over_with_a_word(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

        def broken(*_: Any, **__: Any) -> Tensor:
            raise RuntimeError("CUDA error: no kernel image is available\nCompile with ...")

        monkeypatch.setattr(torch, "ones", broken)
        with pytest.warns(UserWarning, match=r"cannot be used \(CUDA error: no kernel image"):
            assert build_device(None) == CPU

    def test_a_gpu_that_computes_wrongly_is_passed_over(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.zeros(8, 8))
        with pytest.warns(UserWarning, match=r"sum to 0\.0, not 512"):
            assert build_device(None) == CPU

    @pytest.mark.parametrize("name", ["gpu", "cuda:77", "meta", "tpu"])
    def test_one_that_is_not_there_is_refused_with_those_that_are(self, name: str) -> None:
        with pytest.raises(ConfigError, match=rf"device={name} cannot be used .* Try device=cpu"):
            build_device(name)

    def test_the_environment_may_name_it(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("ANTELOPE_DEVICE", "nowhere")
        with pytest.raises(ConfigError, match=r"^ANTELOPE_DEVICE=nowhere cannot be used here"):
            ml(path=str(tmp_path / "a"), **QUIET)
        ml(path=str(tmp_path / "a"), device="cpu", **QUIET)  # What is said comes first.

    def test_it_may_be_torchs_own(self, tmp_path: Path) -> None:
        run = ml(path=str(tmp_path / "a"), device=torch.device("cpu"), **QUIET)
        assert next(run.agent.parameters()).device == CPU
        with pytest.raises(ConfigError, match=r"^device=meta cannot be used here"):
            ml(path=str(tmp_path / "b"), device=torch.device("meta"), **QUIET)

    def test_one_that_is_not_tried_by_itself_is_named(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        monkeypatch.delenv("ANTELOPE_DEVICE", raising=False)
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
        found = torch.device("mps")
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: found)
        assert describe(settings(), CPU, False) == (
            "cpu (device=mps is available too, but is used only on request)"
        )
        assert describe(settings("device=cpu"), CPU, False) == "cpu"


class TestArithmetic:
    def test_a_gpu_times_its_convolutions_unless_runs_are_to_be_alike(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # No GPU here.
        monkeypatch.setattr("antelope.launcher.assembly.device._failure", lambda name: None)
        cudnn = torch.backends.cudnn
        assert not cudnn.benchmark
        for words, wanted in (
            ((), True),
            (("deterministic=true",), False),
            (("cudnn_benchmark=false",), False),
            (("deterministic=true", "cudnn_benchmark=true"), True),
        ):
            with arithmetic(settings(*words), CUDA):
                assert cudnn.benchmark == wanted
            assert not cudnn.benchmark
        with arithmetic(settings(), CPU):
            assert not cudnn.benchmark

    def test_tf32_is_for_the_run_alone(self) -> None:
        before = torch.get_float32_matmul_precision()
        with arithmetic(settings("precision=tf32"), CUDA):
            assert torch.get_float32_matmul_precision() == "high"
        assert torch.get_float32_matmul_precision() == before

    def test_tf32_leaves_the_newer_name_as_it_was(self) -> None:
        matmul: Any = torch.backends.cuda.matmul
        if not hasattr(matmul, "fp32_precision"):
            pytest.skip("needs torch 2.9")
        before = matmul.fp32_precision
        try:
            for given in ("tf32", "ieee"):
                matmul.fp32_precision = given
                with arithmetic(settings("precision=tf32"), CUDA):
                    assert matmul.fp32_precision == "tf32"
                assert matmul.fp32_precision == given
        finally:
            torch.set_float32_matmul_precision("highest")
            matmul.fp32_precision = before

    def test_tf32_needs_a_gpu_that_has_it(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="precision=tf32 needs an NVIDIA GPU"):
            ml("precision=tf32", path=str(tmp_path / "run"), device="cpu", **QUIET)
        assert not list(tmp_path.iterdir())

    def test_determinism_is_for_the_run_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)

        def fail() -> None:
            with arithmetic(settings("deterministic=true"), CPU):
                assert torch.are_deterministic_algorithms_enabled()
                assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        assert not torch.are_deterministic_algorithms_enabled()
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ

    def test_a_gpu_that_was_used_before_may_be_past_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "antelope.launcher.assembly.device._failure", lambda name: "it uses CuBLAS"
        )
        with (
            pytest.raises(
                ConfigError, match="CUBLAS_WORKSPACE_CONFIG=:4096:8 before Python starts"
            ),
            arithmetic(settings("deterministic=true"), CPU),
        ):
            raise AssertionError
        assert not torch.are_deterministic_algorithms_enabled()

    def test_what_the_caller_has_set_of_it_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            with arithmetic(settings("deterministic=true"), CPU):
                assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
                assert not torch.is_deterministic_algorithms_warn_only_enabled()
            assert torch.is_deterministic_algorithms_warn_only_enabled()
        finally:
            torch.use_deterministic_algorithms(False)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


class Layout(nn.Module):
    """Notes how its images lie in memory."""

    flattens = staticmethod(lambda x: x.flatten(1))

    def __init__(self, in_channels: int, out_features: int):
        super().__init__()
        self.filters = nn.Conv2d(in_channels, 4, 3)
        self.head = nn.LazyLinear(out_features)
        self.seen: set[bool] = set()

    def forward(self, obs: Tensor) -> Tensor:
        self.seen.add(obs.is_contiguous(memory_format=torch.channels_last))
        return self.head(self.flattens(self.filters(obs).relu()))

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label)


class Viewing(Layout):
    flattens = staticmethod(lambda x: x.view(len(x), -1))


IMAGES = torch.randn(60, 3, 8, 8), torch.arange(60) % 2


class TestLayout:
    def test_images_are_channels_last_everywhere(self, tmp_path: Path) -> None:
        run = ml(
            model=Layout,
            dataset=IMAGES,
            path=str(tmp_path / "run"),
            channels_last=True,
            aug="RandomHorizontalFlip",
            **QUIET,
        )
        assert run.agent.seen == {True}
        weight: Any = run.agent.filters.weight  # type: ignore[union-attr]
        assert weight.is_contiguous(memory_format=torch.channels_last)

    def test_the_usual_layout_is_the_default(self, tmp_path: Path) -> None:
        run = ml(model=Viewing, dataset=IMAGES, path=str(tmp_path / "run"), **QUIET)
        assert run.agent.seen == {False}

    def test_a_model_that_cannot_take_it_keeps_the_usual_layout(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        from antelope.launcher import assemble

        monkeypatch.setattr(assemble, "wants_channels_last", lambda *_: True)
        run = ml(model=Viewing, dataset=IMAGES, path=str(tmp_path / "run"), **QUIET)
        weight: Any = run.agent.filters.weight  # type: ignore[union-attr]
        assert weight.is_contiguous()

    def test_a_model_that_cannot_take_it_is_an_error_if_it_was_asked_for(
        self, tmp_path: Path
    ) -> None:
        with pytest.raises(ConfigError, match="view size is not compatible"):
            ml(
                model=Viewing,
                dataset=IMAGES,
                path=str(tmp_path / "run"),
                channels_last=True,
                **QUIET,
            )


def test_streams_saved_before_0_5_0_can_be_read() -> None:
    state = {**random_state(CPU), "cuda": [torch.zeros(16, dtype=torch.uint8)] * 8}
    torch.rand(3)
    assert not set_random_state(state, CPU)  # What the card drew cannot be continued here,
    assert torch.equal(torch.get_rng_state(), state["torch"])  # and the rest is.
    assert set_random_state(random_state(CPU), CPU)
