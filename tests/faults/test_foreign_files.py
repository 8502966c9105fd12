"""Rows 38 and 51: presets, run folders and text from elsewhere run no code, and exhaust no memory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from antelope import load, ml
from antelope.launcher.ml import _main
from antelope.launcher.settings import environment_names, names
from antelope.launcher.settings.compose import compose
from antelope.launcher.settings.lookup import unresolved
from antelope.launcher.settings.plain_yaml import load_foreign
from antelope.replay import ConfigError, DataError

EVIL = """
open('ran', 'w').close()
import gymnasium, os, torch
class Net(torch.nn.Linear): pass
class SGD(torch.optim.SGD): pass
class resnet18(torch.nn.Module): pass
class W(gymnasium.Wrapper): pass
def f(*arguments, **named): return 0
"""
QUIET = ("plot=false", "progress=false", "train_steps=1", "dataset=Digits")
SYSTEM = "{_target_: os.system, command: touch ran}"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)

PAYLOADS = {
    "a callable of Python's": f"model: {SYSTEM}",
    "a class of a file here": "model: Net",
    "a file here": "model: evil.py:Net",
    "a module here": "model: evil.Net",
    "torch.hub": "model: {_target_: torch.hub.load, repo_or_dir: ., model: net, source: local}",
    "an argument": "model: {_target_: MLP, activation: " + SYSTEM + "}",
    "a part of a model": f"encoder: {SYSTEM}",
    "an optimiser": "optim: {_target_: subprocess.getoutput, cmd: touch ran}",
    "a scheduler": "scheduler: evil.f",
    "a loss": "loss: evil.py:f",
    "an augmentation": "aug: [RandomHorizontalFlip, evil.Net]",
    "a strategy": "strategy: [er, evil.Net]",
    "a metric": "metrics: [accuracy, evil.f]",
    "a callback": "callbacks: [evil.Net]",
    "a function of ours that imports": (
        "callbacks: {_target_: antelope.launcher.settings.imports.member, module: evil, name: f}"
    ),
    "a module that is called almost as ours": "optim: antelope_evil.SGD",
    "a data set's argument": "dataset: {_target_: FakeData, transform: " + SYSTEM + "}",
    "a data set that unpickles": "dataset: {_target_: LSUN, root: .}",
    "a data set's files, through the hub": "dataset: {_target_: 'hf:pandas', data_files: evil.pkl}",
    "a module's other callables": (
        "env: {_target_: gymnasium.envs.registration.importlib.import_module, name: evil}"
    ),
    "a module's import": "env: evil:Mine-v0",
    "an environment's inner one": "env: {_target_: CartPole-v1, inner: {_target_: 'evil:Mine-v0'}}",
    "a wrapper that imports": "env: CartPole-v1\nenv_wrappers: {_target_: ArrayConversion, env_xp: evil}",
    "a wrapper's function": "env: CartPole-v1\nenv_wrappers: {_target_: TransformReward, func: evil.f}",
    "an unfinished call": "model: 'evil.py:Net('",
    "an unfinished call elsewhere": "loss: '../downloaded/evil.py:f('",
    "an attribute that is none": "optim: 'evil.('",
    "an unfinished import": "env: 'evil:Mine('",
    "a file called like a library": "model: torch.Net",
    "a file called like a module of Python's": "env: 'os.path:Mine'",
    "a file after a name space": "env: 'ALE/../evil.py:W'",
    "a network that observes": "model: {_target_: Observer, backbone: 'evil.py:Net'}",
    "a dist-info beside it": "env: 'evil_package:Mine-v0'",
    "an id whose module is no identifier": "env: {_target_: gymnasium.make, id: 'evil-mod:Mine-v0'}",
    "a wrapper that is not installed": "env: CartPole-v1\nenv_wrappers: NumpyToTorch",
    "trust in itself": f"trust: true\nmodel: {SYSTEM}",
    "a tag": "model: !!python/object/apply:os.system ['touch ran']",
    "a folder above": "path: ../elsewhere",
    "Hydra's settings": "hydra: {job: {chdir: true}, callbacks: {x: " + SYSTEM + "}}",
    "a secret in an address": "dataset: 'hf:evil/${oc.env:HOME}'",
    "an interpolation of its own": "experiment: ${oc.create:{a:1}}",
}


class Observer(torch.nn.Module):
    """A model of the user's, in whose `backbone` a network is named."""

    def __init__(self, backbone: torch.nn.Module) -> None:
        super().__init__()
        self.net = backbone

    def observe(self, x: torch.Tensor, y: torch.Tensor) -> float:
        return 0.0


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A downloaded folder, in which the user works."""
    folder = tmp_path / "downloaded"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    for name in ("evil", "evil-mod", "antelope_evil", "torch", "os"):
        Path(f"{name}.py").write_text(EVIL)
        if name not in ("torch", "os"):
            monkeypatch.delitem(sys.modules, name, raising=False)
    package, about = Path("evil_package"), Path("evil_package-1.dist-info")
    package.mkdir()
    about.mkdir()
    (package / "__init__.py").write_text(EVIL)
    (package / "envs.py").write_text("gymnasium.register(id='Mine-v0', entry_point='evil:W')")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nRequires-Dist: gymnasium\n")
    (about / "top_level.txt").write_text("evil_package\n")
    monkeypatch.setitem(names._REGISTERED, "Observer", Observer)
    environment_names.installed.cache_clear()
    return folder


def preset(text: str) -> None:
    Path("mine.yaml").write_text(f"# @package _global_\n{text}\n")


@pytest.mark.row(38)
@pytest.mark.parametrize("text", PAYLOADS.values(), ids=PAYLOADS.keys())
def test_row_38_a_preset_runs_no_code(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    preset(text)
    given = [word for word in QUIET if not (word.startswith("dataset") and "env:" in text)]
    given = [word for word in given if not (word.startswith("dataset") and "dataset:" in text)]
    assert _main(["task=mine", *given]) == 2
    said = capsys.readouterr().err
    assert not Path("ran").exists()
    assert not Path("../elsewhere").exists()
    assert "mine.yaml" in said
    assert "Traceback" not in said


@pytest.mark.row(38)
@pytest.mark.parametrize(
    "text",
    [
        f"model: {SYSTEM}",
        "model: {_target_: subprocess.getoutput, cmd: touch ran}",
        "model: {_target_: torch.hub.load, repo_or_dir: ., model: net, source: local}",
        "model: {_target_: MLP, activation: " + SYSTEM + "}",
        "model: 'evil.os.system'",
        "model: 'evil.py:os.system'",
        "optim: {_target_: builtins.exec}",
        f"callbacks: [{SYSTEM}]",
        "metrics: [os.system]",
        "env: 'os:system'",
        "env: CartPole-v1\nenv_wrappers: [{_target_: TransformReward, func: os.system}]",
        f"trust: true\nmodel: {SYSTEM}",
    ],
)
def test_row_38_neither_does_text_in_keywords(text: str) -> None:
    settings: dict[str, Any] = yaml.safe_load(text)
    with pytest.raises(ConfigError, match=r"text that names code|may come from a file"):
        ml("plot=false", "progress=false", "train_steps=1", **settings)
    # Files of the working directory may be named, and what they import not.
    assert "evil" in text or not Path("ran").exists()


@pytest.mark.row(38)
def test_row_38_whoever_writes_it_may_trust(capsys: pytest.CaptureFixture[str]) -> None:
    preset("callbacks: [evil.Net]")
    assert _main(["task=mine", "trust=true", *QUIET]) != 0
    assert Path("ran").exists()
    Path("ran").unlink()
    with pytest.raises((ConfigError, TypeError)):
        ml("plot=false", model={"_target_": "subprocess.getoutput", "cmd": "touch ran"}, trust=True)
    assert Path("ran").exists()


@pytest.mark.row(38)
def test_row_38_a_file_here_does_not_shadow_a_librarys_name() -> None:
    preset("optim: SGD\nlr: 0.1\nmodel: MLP")
    run = ml("task=mine", *QUIET)
    assert not Path("ran").exists()
    text = (run.path / "config.yaml").read_text()
    assert "torch.optim.sgd.SGD" in text
    # Nor is what a run folder names looked for here.
    status = run.path / "status.json"
    status.write_text(status.read_text().replace("finished", "interrupted"))
    for name, other in (("torch.optim.sgd.SGD", "SGD"), ("antelope.agents", "evil")):
        (run.path / "config.yaml").write_text(text.replace(name, other))
        _main(["resume", str(run.path), "train_steps=2"])
        assert not Path("ran").exists()


NAMED: dict[str, Any] = {
    "model": {"_target_": "os.system", "command": "touch ran"},
    "a file": {"_target_": "evil.py:Net"},
    "a class here": {"_target_": "Net"},
    "an argument": {
        "_target_": "antelope.agents.blocks.mlp.MLP",
        "activation": {"_target_": "os.system"},
    },
    "optim": {"_target_": "evil.SGD"},
    "scheduler": {"_target_": "evil.f"},
    "loss": {"_target_": "os.system"},
    "aug": ["evil.Net"],
    "strategy": ["evil.Net"],
    "callbacks": [
        {"_target_": "antelope.launcher.settings.imports.member", "module": "evil", "name": "f"}
    ],
    "dataset": {"_target_": "hf:pandas", "data_files": "evil.pkl"},
    "test_dataset": {"_target_": "torchvision.datasets.lsun.LSUN", "root": "."},
    "path": "../elsewhere",
    "trust": True,
}


@pytest.mark.row(38)
def test_row_38_a_run_folder_runs_no_code(capsys: pytest.CaptureFixture[str]) -> None:
    ml("path=kept", "model=MLP", "save_every=1", *QUIET)
    for what, value in NAMED.items():
        key = what if what in ("path", "trust") or " " not in what else "model"
        changed = {key: value, **({"model": NAMED["model"]} if key == "trust" else {})}
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree("kept", "run")
        rewrite(Path("run"), changed)
        for verb in (["resume", "run", "train_steps=2"], ["eval", "run"], ["table", "."]):
            code = _main(verb)
            said = capsys.readouterr().err
            assert not Path("ran").exists(), (what, verb)
            assert not Path("../elsewhere").exists()
            assert "Traceback" not in said
            if verb[0] == "resume" and key != "path":
                assert code == 2, (what, said)


@pytest.mark.row(38)
def test_row_38_nor_do_texts_in_the_arguments_of_a_run_folder(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ml("path=kept", "env=CartPole-v1", "train_steps=2", "eval_episodes=0", "plot=false")
    wrapper = {"_target_": "gymnasium.wrappers.TransformReward", "func": "evil.f"}
    for changed in (
        {"env_wrappers": [wrapper]},
        {"env_wrappers": wrapper},
        {"env": {"_target_": "gymnasium.make", "id": "evil:Mine-v0"}},
    ):
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree("kept", "run")
        rewrite(Path("run"), changed, given=[])
        assert _main(["resume", "run", "train_steps=4"]) == 2
        assert "evil" in capsys.readouterr().err
        with pytest.raises(ConfigError, match=r"evil|TransformReward"):
            load("run").play(1)
        assert not Path("ran").exists(), changed


def rewrite(run: Path, changed: dict[str, Any], **state_too: object) -> None:
    """Write other settings into a run folder, as an attacker would: with hashes that are right."""
    config = run / "config.yaml"
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), **changed}))
    status = run / "status.json"
    status.write_text(status.read_text().replace("finished", "interrupted"))
    for checkpoint in (run / "checkpoints").iterdir():
        state, manifest = checkpoint / "state.json", checkpoint / "manifest.json"
        held = json.loads(state.read_text())
        held["state"]["settings"] |= changed
        held["state"] |= state_too
        state.write_text(json.dumps(held))
        found = json.loads(manifest.read_text())
        found["sha256"]["state.json"] = hashlib.sha256(state.read_bytes()).hexdigest()
        if "size" in found:
            found["size"]["state.json"] = state.stat().st_size
        manifest.write_text(json.dumps(found))


@pytest.mark.row(38)
@pytest.mark.parametrize("words", [("task=mine",), ("plot", ".")])
def test_row_38_in_a_process_of_its_own(words: tuple[str, ...]) -> None:
    preset(f"model: {SYSTEM}")
    Path("hydra_plugins").mkdir()
    Path("hydra_plugins/evil.py").write_text(EVIL)
    Path("numpy.py").write_text(EVIL)
    done = subprocess.run(
        [sys.executable, "-c", "from antelope.launcher.ml import main; main()", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"},
        timeout=100,
    )
    assert not Path("ran").exists(), done.stderr
    assert done.returncode in (0, 2), done.stderr


@pytest.mark.row(51)
def test_row_51_yaml_that_repeats_itself_is_refused_at_once() -> None:
    for text, says in (
        (BOMB, "more than 100,000 values"),
        ("a: &a [*a]", "never ends"),
        ("[" * 100_000, "nest"),
        ("x" * 1_000_001, "characters"),
    ):
        with pytest.raises(ValueError, match=says):
            load_foreign(text)
        preset(f"model:\n  {text}".replace("\n", "\n  "))
        assert _main(["task=mine", *QUIET]) == 2
    for text in (BOMB, "a: &a [*a]"):
        with pytest.raises(ConfigError, match="holds"):
            ml(model=yaml.safe_load(text), plot=False)
    many = "".join(
        f"  {new}: '{f'${{model.{old}}}' * 10}'\n"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    preset(f"model:\n  a: xxxxxxxxxx\n{many}")
    assert _main(["task=mine", *QUIET]) == 2


@pytest.mark.row(51)
def test_row_51_a_picture_of_400_megapixels_is_not_decoded() -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99))
    for number in range(8):
        folder = Path(f"pictures/class{number % 2}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(png)
    with pytest.raises(DataError, match=r"DecompressionBomb.*Shrink or remove it"):
        ml("dataset=pictures", "plot=false", "progress=false", "train_steps=1")


@pytest.mark.row(38)
@pytest.mark.parametrize("table", [False, True])
def test_row_38_a_picture_runs_no_program(table: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import EpsImagePlugin, Image

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: Path("ran").touch())
    for number in range(8):
        folder = Path(f"pictures/class{number % 2}")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (30 * number, 0, 0)).save(folder / f"{number}.png")
    Image.new("RGB", (8, 8)).save("pictures/class0/0.png", "EPS")
    if table:
        datasets = pytest.importorskip("datasets")
        files = sorted(str(path) for path in Path("pictures").rglob("*.png"))
        columns = {"image": files, "label": [int("class1" in file) for file in files]}
        data = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
        data.save_to_disk("table")
    with pytest.raises(DataError, match="PostScript"):
        ml("dataset=" + ("table" if table else "pictures"), "plot=false", "train_steps=1")
    assert not Path("ran").exists()


@pytest.mark.row(38)
def test_row_38_text_in_keywords_calls_no_resolver() -> None:
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("eval", eval, replace=True)
    text = '${eval:\'open("ran", "w")\'}'
    try:
        for settings in ({"experiment": text}, {"model": {"_target_": "MLP", "sizes": [text]}}):
            with pytest.raises(ConfigError, match="text in keywords"):
                ml(*QUIET, **settings)
            assert not Path("ran").exists()
        ml(*QUIET, "seed=${eval:1+1}", lr=0.1, experiment="${oc.env:NONE,of}_lr${lr}")
        assert Path("runs/of_lr0.1").is_dir()
    finally:
        OmegaConf.clear_resolver("eval")


@pytest.mark.row(38)
@pytest.mark.parametrize("text", ["http://here:80/x", "https://here", "127.0.0.1:80", "cuda:0"])
def test_row_38_an_address_is_no_module(text: str) -> None:
    settings = compose([], {"env": {"_target_": "CartPole-v1", "render_mode": text}})
    assert unresolved(settings) == []
    if not text.startswith("127"):
        preset(f"env: {{_target_: CartPole-v1, render_mode: '{text}'}}")
        assert unresolved(compose(["task=mine"], {})) == []
