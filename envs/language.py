"""Synthetic languages: sequences of different lengths, to be told apart by their grammar."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..replay import ConfigError, Ragged

_HELD_OUT = 5  # One held-out sentence for so many to learn from.


class Language(Dataset[tuple[Tensor, int]]):
    """Sentences of several artificial languages, int64 `[T]`; the class is the language.

    All languages have the same words, each as frequent as any other, so that counting words tells nothing
    apart. They differ in grammar: in each, a word may be followed by `branching` others only. That makes a
    language a Markov chain, and so a regular language with noise.

    Args:
        train: Whether to draw the sentences to learn from, or the held-out ones, a fifth as many.
        classes: Number of languages.
        words: Number of words; a word is an integer from 0 to `words` - 1.
        shortest, longest: Words in a sentence; every length in between is equally likely.
        branching: Words that may follow a word: more of them make grammars harder to tell apart.
        noise: Probability that a word is a random one instead, 0 to 1.
        rows: Sentences of each language to learn from.
        seed: Seeds the grammars and sentences, int.

    Raises:
        ConfigError: If an argument is out of range.
    """

    def __init__(
        self,
        train: bool = True,
        classes: int = 10,
        words: int = 20,
        shortest: int = 5,
        longest: int = 30,
        branching: int = 3,
        noise: float = 0.1,
        rows: int = 500,
        seed: int = 0,
    ):
        _check(classes, words, shortest, longest, branching, noise, rows)
        grammars, sentences = np.random.SeedSequence([seed, *b"Language"]).spawn(2)
        follow = _grammars(np.random.default_rng(grammars), classes, words, branching)
        # Held-out sentences have a stream of their own: more rows to learn from leave them unchanged.
        stream = np.random.default_rng(sentences.spawn(2)[0 if train else 1])
        labels = np.arange(classes).repeat(rows if train else -(-rows // _HELD_OUT))
        spoken = _spoken(stream, follow, labels, longest, noise)
        lengths = stream.integers(shortest, longest, len(labels), endpoint=True)
        kept = np.arange(longest) < lengths[:, None]
        offsets = torch.from_numpy(np.concatenate([[0], lengths.cumsum()]))
        self.inputs = Ragged(torch.from_numpy(spoken[kept]), offsets)
        self.targets = torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        if not -len(self) <= i < len(self):
            raise IndexError(f"Language has {len(self)} sentences, no number {i}.")
        return self.inputs[i % len(self)], int(self.targets[i])


def _grammars(random: np.random.Generator, classes: int, words: int, branching: int) -> np.ndarray:
    """The words that may follow each word, int64 `[classes, words, branching]`."""
    follow = np.empty((classes, words, branching), np.int64)
    for grammar in follow:
        # Rotations of one random order, relabelled: every word follows equally many words.
        order, steps = random.permutation(words), random.permutation(words)[:branching]
        grammar[order] = random.permutation(words)[(np.arange(words)[:, None] + steps) % words]
    return follow


def _spoken(
    random: np.random.Generator, follow: np.ndarray, labels: np.ndarray, longest: int, noise: float
) -> np.ndarray:
    """A sentence of `longest` words for each label, int64 `[N, longest]`."""
    _, words, branching = follow.shape
    spoken = np.empty((len(labels), longest), np.int64)
    spoken[:, 0] = random.integers(words, size=len(labels))
    for t in range(1, longest):
        chosen = follow[labels, spoken[:, t - 1], random.integers(branching, size=len(labels))]
        anything = random.integers(words, size=len(labels))
        spoken[:, t] = np.where(random.random(len(labels)) < noise, anything, chosen)
    return spoken


def _check(
    classes: int, words: int, shortest: int, longest: int, branching: int, noise: float, rows: int
) -> None:
    wrong = []
    for name, value, low in (
        ("classes", classes, 2),
        ("words", words, 2),
        ("shortest", shortest, 1),
        ("rows", rows, 1),
    ):
        if value < low:
            wrong.append(f"{name}={value} must be at least {low}")
    if longest < shortest:
        wrong.append(f"longest={longest} must be at least shortest={shortest}")
    if not 1 <= branching <= words:
        wrong.append(f"branching={branching} must be from 1 to words={words}")
    if not 0 <= noise <= 1:
        wrong.append(f"noise={noise} must be a probability, 0 to 1")
    if wrong:
        raise ConfigError(f"Language: {'; '.join(wrong)}.")
