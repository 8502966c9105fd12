"""Sequences of different lengths, from the data people have to a trained model and its predictions."""

import functools
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import Dataset

import antelope
from antelope import ConfigError, DataError, ml
from antelope.agents.calling import output_of
from antelope.agents.continual.context import Context
from antelope.agents.continual.ewc import fisher_information

QUIET = {"plot": False, "epochs": 1, "batch_size": 8}


class Words(nn.Module):
    """An embedding and a GRU over real steps."""

    def __init__(self, num_embeddings, num_classes):
        super().__init__()
        self.embed = nn.Embedding(num_embeddings, 8)
        self.memory = nn.GRU(8, 16, batch_first=True)
        self.head = nn.Linear(16, num_classes)

    def forward(self, obs, length):
        steps = pack_padded_sequence(
            self.embed(obs), length.cpu(), batch_first=True, enforce_sorted=False
        )
        return self.head(self.memory(steps)[1][-1])


class Mean(nn.Module):
    """The mean over real steps, through one layer."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.head = nn.Linear(in_features, out_features)

    def forward(self, obs, mask):
        obs = obs if obs.dim() > 2 else obs[..., None]
        return self.head((obs * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


def tokens(n=40, seed=0):
    """Sentences whose first word is their class, and whose length is not."""
    draw = np.random.default_rng(seed)
    rows = [draw.integers(2, 9, size=draw.integers(1, 7)).tolist() for _ in range(n)]
    labels = [i % 2 for i in range(n)]
    return [[label, *row] for label, row in zip(labels, rows, strict=True)], labels


def values(n=40, features=2, seed=0):
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, 6, size=n)
    rows = [(10 + 3 * draw.standard_normal((k, features))).astype(np.float32) for k in lengths]
    return rows, [i % 2 for i in range(n)]


class Items(Dataset):
    def __init__(self, rows, labels):
        self.rows, self.labels = rows, labels

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return torch.tensor(self.rows[i]), self.labels[i]


def run(path, model, data, **more):
    return ml(path=str(path / "run"), model=model, dataset=data, **{**QUIET, **more})


@pytest.mark.parametrize(
    "form",
    [
        lambda rows, labels: (rows, labels),
        lambda rows, labels: (np.array(rows, object), np.array(labels)),
        lambda rows, labels: (
            torch.nested.nested_tensor([torch.tensor(r) for r in rows], layout=torch.jagged),
            torch.tensor(labels),
        ),
        lambda rows, labels: list(zip(rows, labels, strict=True)),
        Items,
    ],
)
def test_every_form_of_the_same_sequences_trains_the_same_model(tmp_path, form):
    rows, labels = tokens()
    here = run(tmp_path, Words, form(rows, labels))
    assert here.spec.obs.shape == (max(map(len, rows)),)
    assert here.spec.obs.n == 9
    assert here.spec.obs.ragged
    seen = {}
    for batch in here.replay.once(7):
        assert batch.obs.shape[1] == batch.length.max()
        assert torch.equal(batch.mask, torch.arange(batch.obs.shape[1]) < batch.length[:, None])
        for obs, mask, label in zip(batch.obs, batch.mask, batch.label, strict=True):
            seen[tuple(obs[mask].tolist())] = int(label)
            assert not obs[~mask].any()
    assert len(seen) > 25
    assert all(rows.index(list(row)) % 2 == label for row, label in seen.items())


def test_floats_are_standardised_by_their_real_steps_and_padded_with_zeros_afterwards(tmp_path):
    rows, labels = values()
    here = run(tmp_path, Mean, (rows, labels))
    train = torch.cat([batch.obs[batch.mask] for batch in here.replay.once()])
    assert here.spec.obs.shape == (5, 2)
    assert here.spec.obs.mean.shape == (2,)
    assert torch.allclose(train.mean(0), torch.zeros(2), atol=1e-5)
    assert torch.allclose(train.std(0, correction=0), torch.ones(2), atol=1e-4)
    assert not any(batch.obs[~batch.mask].any() for batch in here.replay.once())


@pytest.mark.parametrize("kind", [np.uint8, bool, np.float64])
def test_bytes_and_booleans_and_numbers_of_one_feature_are_sequences_too(tmp_path, kind):
    rows, labels = tokens()
    here = run(tmp_path, Mean, ([np.array(row, kind) for row in rows], labels))
    batch = here.replay.sample(6)
    assert batch.obs.dtype == torch.float32
    assert batch.obs.shape == (6, int(batch.length.max()))
    assert here.spec.obs.ids is None


def test_padding_does_not_change_what_a_model_with_lengths_predicts(tmp_path):
    rows, labels = tokens()
    here = run(tmp_path, Words, (rows, labels))
    together = here(rows)
    alone = np.stack([here([row])[0] for row in rows])
    assert np.allclose(together, alone, atol=1e-5)
    assert np.array_equal(here.predict(rows[0]), here.predict([rows[0]]))


def test_a_trained_model_predicts_raw_sequences_after_it_is_loaded(tmp_path):
    rows, labels = values()
    here = run(tmp_path, Mean, (rows, labels))
    there = antelope.load(here.path, model=Mean)
    longer = [np.ones((9, 2), np.float32), rows[0]]
    assert np.array_equal(here(longer), there(longer))
    assert len(there.predict(Items([row.tolist() for row in rows], labels))) == len(rows)
    with pytest.raises(DataError, match=r"sequences \[T, 2\] of different lengths"):
        there.predict([[1.0, 2.0, 3.0]])
    ids = antelope.load(run(tmp_path / "b", Words, tokens()).path, model=Words)
    with pytest.raises(DataError, match="trained on integers from 0 to 8"):
        ids.predict([[3, 99]])


def test_sequences_that_have_changed_since_are_pointed_out(tmp_path):
    rows, labels = tokens()
    held_out = {"test_dataset": tokens(8, seed=1)}
    run = ml(dataset=(rows, labels), path=tmp_path / "run", **held_out, **QUIET)
    load = functools.partial(antelope.load, run.path, **held_out)
    assert load(dataset=(rows, labels)).evaluate() == run.metrics
    for changed in (
        [[*row[:-1], 9 - row[-1]] if len(row) > 4 else row for row in rows],
        [*rows[:-2], rows[-2][:-1], [rows[-2][-1], *rows[-1]]],  # The same steps in turn.
    ):
        with pytest.raises(DataError, match="inputs of the training rows have changed"):
            load(dataset=(changed, labels)).evaluate()


def test_held_out_sequences_may_be_longer_or_all_of_one_length(tmp_path):
    rows, labels = tokens()
    here = run(tmp_path, Words, (rows, labels), test_dataset=([[0] * 30, [1] * 30], [0, 1]))
    assert here.spec.obs.shape == (30,)
    even = run(tmp_path / "b", Words, ([[0, 1], [1, 0]] * 9, [0, 1] * 9), test_dataset=tokens())
    assert even.spec.obs.ragged


def test_sequences_of_one_length_remain_a_plain_tensor(tmp_path):
    here = run(tmp_path, "MLP", ([[0.0, 1.0], [1.0, 0.0]] * 10, [0, 1] * 10))
    assert not here.spec.obs.ragged
    assert "length" not in here.replay.sample(2)


def test_the_default_agent_leaves_padding_out(tmp_path, capsys):
    rows, labels = tokens()
    here = run(tmp_path, None, (rows, labels), epochs=20)
    assert "padding" not in capsys.readouterr().out
    assert here.metrics["accuracy"] == 1
    assert np.allclose(here(rows)[3], here([rows[3]])[0], atol=1e-5)
    numbers = run(tmp_path / "b", None, (values()[0], [float(i) for i in range(40)]))
    assert numbers.predict(values()[0]).shape == (40,)


def test_a_model_that_cannot_tell_padding_from_steps_is_pointed_out(tmp_path, capsys):
    class Blind(Mean):
        def forward(self, obs):
            return self.head(obs.mean(1))

    said = "Blind.forward has neither `length` nor `mask`"
    run(tmp_path, Blind, values())
    assert said in capsys.readouterr().out
    run(tmp_path / "silent", Blind, values(), progress=False)
    assert said in capsys.readouterr().err


def test_a_parameter_with_another_name_for_lengths_is_pointed_out(tmp_path, capsys):
    class Plural(Mean):
        def forward(self, obs, silent=False, lengths=None):
            return self.head(obs.mean(1))

    run(tmp_path, Plural, values())
    assert "Rename `lengths`, which is never filled in" in capsys.readouterr().out


def test_a_number_instead_of_sequences_is_refused_for_prediction(tmp_path):
    with pytest.raises(DataError, match=r"have shape \[\].*Give a list of such sequences"):
        run(tmp_path, Mean, values(), epochs=1).predict(3)


def test_a_forward_that_needs_lengths_of_data_without_them_is_answered(tmp_path):
    with pytest.raises(ConfigError, match=r"all have one shape. Write mask=None"):
        run(tmp_path, Mean, (np.ones((20, 3)), [0, 1] * 10))


@pytest.mark.parametrize("name", ["lengths", "src_key_padding_mask"])
def test_other_names_for_lengths_are_answered_with_ours(tmp_path, name):
    source = f"lambda self, obs, {name}: Mean.forward(self, obs, {name})"
    model = type("Mine", (Mean,), {"forward": eval(source, {"Mean": Mean})})
    with pytest.raises(ConfigError, match=f"`length`, int64.*`mask`, bool.*rename `{name}`"):
        run(tmp_path, model, values())


def test_augmented_sequences_are_padded_with_zeros_again(tmp_path):
    here = run(tmp_path, Mean, values(), aug=lambda obs: obs + 1)
    batch = here.replay.__next__()
    assert not batch.obs[~batch.mask].any()
    assert not torch.allclose(batch.obs, batch.raw)
    with pytest.raises(ConfigError, match="it must keep their shape"):
        run(tmp_path / "b", Mean, values(), aug=lambda obs: obs[:, :1])


def test_a_learning_step_of_ones_own_and_validation_see_lengths(tmp_path):
    class Own(Mean):
        def learn(self, replay):
            batch = next(replay)
            few = batch[batch.length > 1]
            assert few.obs.shape[:2] == few.mask.shape
            return F.cross_entropy(self(batch.obs, batch.mask), batch.label)

    assert run(tmp_path, Own, values(), validation=0.2).metrics["loss"] > 0


def test_a_later_task_may_be_longer_or_of_one_length(tmp_path):
    here = run(tmp_path, Words, Items(*tokens()), num_classes=4)
    here.learn_task(Items([[3, 1] * 8, [0, 5]] * 9, [2, 3] * 9))
    here.learn_task(Items([[3, 1], [0, 5]] * 9, [2, 3] * 9))
    assert here.accuracy_matrix.shape == (3, 3)
    assert here.predict([[3, 1] * 20]).shape == (1,)


def test_a_forward_that_looks_lengths_up_by_key_is_told_to_name_them(tmp_path):
    class ByKey(Words):
        def forward(self, obs, **given):
            return super().forward(obs, given["length"])

    with pytest.raises(
        ConfigError, match=r"forward that names it: write forward\(self, x, length="
    ):
        run(tmp_path, ByKey, tokens())


def test_a_learning_step_of_ones_own_without_lengths_is_told_to_pass_them(tmp_path):
    class Forgets(Words):
        def forward(self, obs, length):
            return super().forward(obs, length)

        def learn(self, replay):
            batch = next(replay)
            return F.cross_entropy(self(batch.obs), batch.label)

    with pytest.raises(TypeError) as caught:
        run(tmp_path, Forgets, tokens())
    assert "Here: self(batch.obs, length=batch.length)." in "".join(caught.value.__notes__)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("strategy", ["er", ["ewc", "lwf"], "packnet"])
def test_a_sequence_of_tasks_resumes_to_the_bit(tmp_path, strategy):
    data = (tokens(64)[0], [i % 4 for i in range(64)])
    settings = {**QUIET, "tasks": 2, "strategy": strategy, "epochs": 2, "save_every": 3}

    class Stopping(Words):
        left = 10**9

        def learn(self, replay):
            Stopping.left -= 1
            if Stopping.left == 0:
                raise Interrupted
            batch = next(replay)
            return F.cross_entropy(self(batch.obs, batch.length), batch.label)

    whole = ml(path=str(tmp_path / "whole"), model=Stopping, dataset=data, **settings)
    Stopping.left = 11
    with pytest.raises(Interrupted):
        ml(path=str(tmp_path / "run"), model=Stopping, dataset=data, **settings)
    again = ml(path=str(tmp_path / "run"), model=Stopping, dataset=data, resume=True, **settings)
    expected = whole.agent.state_dict()
    assert all(torch.equal(w, expected[n]) for n, w in again.agent.state_dict().items())
    assert again.metrics == whole.metrics


@pytest.mark.parametrize(
    "strategy",
    ["er", "er_ace", "der", "derpp", "ewc", "ewc_online", "si", "mas", "lwf", "gem", "agem", "icarl",
     "gdumb", "cwr", "packnet", "pnn", "joint", "cumulative"],
)  # fmt: skip
def test_every_strategy_calls_the_model_with_lengths(tmp_path, strategy):
    class Checked(Words):
        def forward(self, obs, length, mask):
            real = torch.arange(obs.shape[1]) < length[:, None]
            assert torch.equal(mask, real)
            assert not obs.masked_select(~mask).any()
            return super().forward(obs, length)

    data = ([[i % 4 + 1] * (i % 5 + 1) for i in range(32)], [i % 4 for i in range(32)])
    few = {"strategy.gdumb.passes": 1} if strategy == "gdumb" else {}
    assert len(run(tmp_path, Checked, data, tasks=2, strategy=strategy, **few).accuracy_matrix) == 2


@pytest.mark.parametrize("form", ["length", "mask"])
def test_the_fisher_information_of_padded_rows_is_that_of_the_rows_alone(tmp_path, form):
    model = {"length": Words, "mask": Mean}[form]
    data = {"length": tokens(), "mask": values()}[form]
    here = run(tmp_path, model, data)
    agent, replay = here.agent, here.replay
    context = Context(
        agent, here.spec, scenario="class", classes=[torch.arange(2)], learn=lambda *_: None
    )
    found = fisher_information(agent, replay, context, samples=None)
    expected = {name: torch.zeros_like(p) for name, p in agent.named_parameters()}
    for batch in replay.once(1):
        agent.zero_grad()
        F.cross_entropy(output_of(agent, batch), batch.label).backward()
        for name, p in agent.named_parameters():
            expected[name] += p.grad.square() / len(replay)
    context.close()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=1e-6, rtol=1e-3), name


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (([[1], [], [2, 3]], [0, 1, 0]), "holds an empty sequence, at 1"),
        (([[1], [2, 3]], [[1], [2, 3]]), "a target for each step .* is not supported"),
        (([["a", "b"], ["c"]], [0, 1]), "an index into a vocabulary"),
        (([np.ones((2, 3)), np.ones((1, 2))], [0, 1]), "in their first dimension only"),
        (
            ({"text": [[1], [2, 3]], "size": [1.0, 2.0]}, [0, 1]),
            "`text` of arrays differ in length. Inside a dict of inputs, sequences must",
        ),
        (([[1.0, float("nan")], [1.0]], [0, 1]), "NaN"),
    ],
)
def test_what_cannot_be_read_as_sequences_is_one_error(tmp_path, data, message):
    with pytest.raises(DataError, match=message):
        run(tmp_path, Mean, data)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["GRU", "Transformer"])
def test_the_example_s_models_learn_what_the_first_word_says(tmp_path, name):
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "sequences.py"))
    here = run(tmp_path, example[name], tokens(200), epochs=6, lr=3e-3)
    assert here.metrics["accuracy"] > 0.9


def test_an_encoder_for_one_shape_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="encoder=Linear cannot be used with sequences"):
        run(tmp_path, None, values(), encoder=nn.Linear(2, 2))
