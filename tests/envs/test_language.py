"""The embedded languages: deterministic, balanced, and different in their grammar only."""

from itertools import pairwise

import pytest
import torch

from antelope import ConfigError
from antelope.envs import Language


def test_sentences_are_those_of_their_seed():
    first, again, other = Language(rows=4), Language(rows=4), Language(rows=4, seed=1)
    assert torch.equal(first.inputs.values, again.inputs.values)
    assert torch.equal(first.inputs.offsets, again.inputs.offsets)
    assert not torch.equal(first.inputs.offsets, other.inputs.offsets)


def test_held_out_sentences_are_others_a_fifth_as_many_whatever_there_is_to_learn_from():
    few, many = Language(train=False, rows=6), Language(train=False, rows=10)
    train = Language(rows=10)
    assert len(train) == 100
    assert len(few) == 20
    assert torch.equal(few.inputs.values, many.inputs.values)
    assert few[0][0].tolist() != train[0][0].tolist()
    as_many = Language(rows=2)
    assert len(as_many) == 20
    assert not torch.equal(few.inputs.offsets, as_many.inputs.offsets)


def test_lengths_and_words_are_within_their_bounds():
    data = Language(rows=50, shortest=2, longest=4, words=7, branching=2)
    assert set(data.inputs.lengths.tolist()) == {2, 3, 4}
    assert set(data.inputs.values.tolist()) == set(range(7))
    assert data.targets.bincount().tolist() == [50] * 10


def test_without_noise_only_as_many_words_follow_a_word_as_the_grammar_allows():
    data = Language(classes=2, rows=300, noise=0, branching=2, words=5)
    for language in (0, 1):
        rows = [data.inputs[i] for i in (data.targets == language).nonzero().flatten()]
        pairs = {pair for row in rows for pair in pairwise(row.tolist())}
        assert len(pairs) == 5 * 2
        assert sorted(after for _, after in pairs) == sorted([0, 1, 2, 3, 4] * 2)


def test_with_noise_any_word_may_follow_any_other():
    data = Language(classes=2, rows=300, noise=1, branching=2, words=5)
    pairs = {pair for i in range(len(data)) for pair in pairwise(data.inputs[i].tolist())}
    assert len(pairs) == 5 * 5


def test_items_are_a_sentence_and_its_language():
    sentence, language = Language(rows=2)[-1]
    assert sentence.dtype == torch.int64
    assert language == 9
    with pytest.raises(IndexError, match="has 20 sentences, no number 20"):
        Language(rows=2)[20]


def test_arguments_out_of_range_are_refused_together():
    with pytest.raises(ConfigError, match=r"classes=1 must .* longest=2 must .* noise=2 must be"):
        Language(classes=1, longest=2, noise=2)
    with pytest.raises(ConfigError, match="branching=30 must be from 1 to words=20"):
        Language(branching=30)
