"""Words read without Hydra, against Hydra's own grammar."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st

from antelope.launcher.settings.plain_words import plain_word

PARSER = OverridesParser.create()
NAMES = ["true", "False", "null", "Null", "inf", "NaN", "a", "Z", "_", "e", "E", "x1", "v1", "e5"]
NUMBERS = ["0", "9", "12", "1e-3", "1_0"]
SIGNS = ["-", "+", ".", "/", ":", "=", "$", "@", ",", "~", "'", "["]
PIECES = [*NAMES, *NUMBERS, *SIGNS]
KEYS = st.sampled_from(["lr", "a.b", "hydra", "optim.groups", "task", "_x"])
TEXTS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join)


@given(KEYS, TEXTS)
@example("lr", "1e-3")
@example("env", "CartPole-v1")
@example("task", "classify/mnist")
@example("model", "file.py:Model")
def test_what_is_read_means_the_same_to_hydra(key: str, text: str) -> None:
    if (read := plain_word(f"{key}={text}")) is None:
        return
    override = PARSER.parse_override(f"{key}={text}")
    assert override.package is None
    assert not override.is_sweep_override()
    assert read == (override.key_or_group, override.value())
    assert type(read[1]) is type(override.value())


@pytest.mark.parametrize(
    "word", ["lr=1e-3", "seed=-3", "plot=FALSE", "env=CartPole-v1", "model=a.py:Net", "x=null"]
)
def test_usual_words_are_plain(word: str) -> None:
    assert plain_word(word) is not None


@pytest.mark.parametrize(
    "word", ["lr=", "seed=1,2", "~lr", "++lr=1", "name='a'", "x=inf", "x=[1]", "a@b=c", "x=${y}"]
)
def test_the_rest_is_left_to_hydra(word: str) -> None:
    assert plain_word(word) is None


def test_plain_words_are_composed_without_hydra_and_omegaconf() -> None:
    code = (
        "import sys\n"
        "from antelope.launcher.settings.compose import compose\n"
        "compose(['lr=1e-3', 'dataset=MNIST', 'task=classify/mnist'], {'epochs': 2}).yaml()\n"
        "assert not {'hydra', 'omegaconf', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
