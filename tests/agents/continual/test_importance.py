"""Gradients of single rows in every kind of layer: the same as those of a loop over the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from antelope.agents.continual import importance
from antelope.agents.continual.importance import mean_over_rows
from antelope.replay import Batch

CLASSES, ROWS = 5, 11

# torch's own advice on how two of the layers compute.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
]


class Rows:
    """A task's data, as `end_task` meets it: some rows at a time, of which the last are fewer."""

    def __init__(self, obs: Tensor) -> None:
        label = torch.arange(len(obs)) % CLASSES
        self.batch = Batch(obs=obs, label=label, task=label % 2)

    def __len__(self) -> int:
        return len(self.batch)

    def once(self) -> Iterator[Batch]:
        for start in range(0, len(self.batch), 6):
            yield self.batch[start : start + 6]


def log_likelihood(output: Tensor, batch: Batch) -> Tensor:
    return -F.cross_entropy(output, batch.label, reduction="none")


def one_by_one(agent: nn.Module, rows: Rows, value: Any, of: Any) -> dict[str, Tensor]:
    """A loop over the rows, with autograd alone."""
    agent.eval()
    learnt = {name: p for name, p in agent.named_parameters() if p.requires_grad}
    sums = {name: torch.zeros_like(p) for name, p in learnt.items()}
    for i in range(len(rows)):
        row = rows.batch[i : i + 1]
        for number in value(agent(row.obs), row).reshape(-1):
            found = torch.autograd.grad(
                number, list(learnt.values()), retain_graph=True, allow_unused=True
            )
            for name, gradient in zip(learnt, found, strict=True):
                if gradient is not None:
                    sums[name] += of(gradient.to_dense()) / len(rows)
    agent.train()
    return sums


def check(
    agent: nn.Module, obs: Tensor, value: Any = log_likelihood, *, of: Any = torch.square
) -> None:
    rows = Rows(obs)
    found = mean_over_rows(agent, rows, value, of=of)  # type: ignore[arg-type]
    expected = one_by_one(agent, rows, value, of)
    assert found.keys() == expected.keys()
    for name, importance_ in found.items():
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(
            importance_,
            expected[name],
            rtol=1e-3,
            atol=1e-5 * scale + 1e-12,
            msg=lambda m, n=name: f"{n}: {m}",
        )


class Then(nn.Module):
    """A layer, what becomes of its output, and a layer for the classes.

    Args:
        before: What is done to the observations.
        after: Makes of the layer's output `[B, D]`.
    """

    def __init__(
        self,
        layer: nn.Module,
        obs: Tensor,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Any], Tensor] = lambda y: y.flatten(1),
    ) -> None:
        super().__init__()
        self.layer, self.before, self.after = layer, before, after
        with torch.no_grad():
            width = after(layer(before(obs[:2]))).shape[1]
        self.head = nn.Linear(width, CLASSES)

    def forward(self, obs: Tensor) -> Tensor:
        return self.head(self.after(self.layer(self.before(obs))).tanh())


def numbers(*shape: int) -> Tensor:
    return torch.randn(ROWS, *shape)


def words(*shape: int) -> Tensor:
    return torch.randint(0, 7, (ROWS, *shape))


def statistics(layer: Any) -> Any:
    """Running statistics as of training."""
    layer.running_mean.normal_()
    layer.running_var.uniform_(0.5, 2)
    return layer


def first(outputs: Any) -> Tensor:
    return outputs[0].flatten(1)


def last_step(outputs: Any) -> Tensor:
    """Of time-major outputs."""
    return outputs[0][-1]


def time_major(x: Tensor) -> Tensor:
    return x.transpose(0, 1)


KNOWN: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {}


def known(name: str, layer: Callable[[], nn.Module], obs: Callable[[], Tensor], *how: Any) -> None:
    def make() -> tuple[nn.Module, Tensor]:
        data = obs()
        return Then(layer(), data, *how), data

    KNOWN[name] = make


known("linear of a sequence", lambda: nn.Linear(3, 4), lambda: numbers(6, 3))
known("linear of a grid", lambda: nn.Linear(3, 4, bias=False), lambda: numbers(2, 3, 3))
known(
    "linear, time-major",
    lambda: nn.Linear(3, 4),
    lambda: numbers(6, 3),
    time_major,
    lambda y: y.transpose(0, 1).flatten(1),
)
known(
    "linear of flattened steps",
    lambda: nn.Linear(3, 4),
    lambda: numbers(6, 3),
    lambda x: x.flatten(0, 1),
    lambda y: y.view(-1, 24),
)
known(
    "linear of flattened steps, time-major",
    lambda: nn.Linear(3, 4),
    lambda: numbers(6, 3),
    lambda x: x.transpose(0, 1).flatten(0, 1),
    lambda y: y.view(6, -1, 4).transpose(0, 1).flatten(1),
)
known("conv1d", lambda: nn.Conv1d(3, 4, 3, stride=2, padding=1, dilation=2), lambda: numbers(3, 9))
known("conv1d, same", lambda: nn.Conv1d(3, 4, 4, padding="same"), lambda: numbers(3, 9))
known(
    "conv2d",
    lambda: nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=(1, 0)),
    lambda: numbers(2, 6, 5),
)
known("conv2d, groups", lambda: nn.Conv2d(4, 6, 3, groups=2, bias=False), lambda: numbers(4, 5, 5))
known(
    "conv2d, depthwise", lambda: nn.Conv2d(4, 8, 3, groups=4, padding=1), lambda: numbers(4, 5, 5)
)
known("conv2d, 1x1", lambda: nn.Conv2d(4, 8, 1), lambda: numbers(4, 3, 3))
known(
    "conv2d, circular",
    lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
    lambda: numbers(2, 5, 5),
)
known(
    "conv2d, reflect",
    lambda: nn.Conv2d(2, 3, 3, padding="same", padding_mode="reflect"),
    lambda: numbers(2, 5, 5),
)
known(
    "conv2d, stride beyond the kernel",
    lambda: nn.Conv2d(2, 3, 2, stride=3),
    lambda: numbers(2, 8, 8),
)
known(
    "conv2d of frames",
    lambda: nn.Conv2d(1, 3, 3),
    lambda: numbers(4, 1, 5, 5),
    lambda x: x.flatten(0, 1),
    lambda y: y.view(-1, 108),
)
known(
    "conv3d", lambda: nn.Conv3d(2, 3, 2, padding=1, dilation=(1, 2, 1)), lambda: numbers(2, 4, 4, 4)
)
known("embedding", lambda: nn.Embedding(7, 3), lambda: words(6))
known("embedding with padding", lambda: nn.Embedding(7, 3, padding_idx=2), lambda: words(6))
known("embedding, sparse", lambda: nn.Embedding(7, 3, sparse=True), lambda: words(6))
known("layer norm", lambda: nn.LayerNorm(4), lambda: numbers(3, 4))
known("layer norm of an image", lambda: nn.LayerNorm([2, 3]), lambda: numbers(4, 2, 3))
known("rms norm", lambda: nn.RMSNorm(4), lambda: numbers(3, 4))
known("group norm", lambda: nn.GroupNorm(2, 4), lambda: numbers(4, 3, 3))
known("instance norm", lambda: nn.InstanceNorm2d(3, affine=True), lambda: numbers(3, 4, 4))
known("batch norm", lambda: statistics(nn.BatchNorm1d(4)), lambda: numbers(4))
known("batch norm of an image", lambda: statistics(nn.BatchNorm2d(4)), lambda: numbers(4, 3, 3))
known("gru", lambda: nn.GRU(3, 4, batch_first=True), lambda: numbers(6, 3), lambda x: x, first)
known("gru, time-major", lambda: nn.GRU(3, 4), lambda: numbers(6, 3), time_major, last_step)
known(
    "gru, deep, both ways",
    lambda: nn.GRU(3, 4, 2, batch_first=True, bidirectional=True, dropout=0.5),
    lambda: numbers(5, 3),
    lambda x: x,
    first,
)
known(
    "gru without bias",
    lambda: nn.GRU(3, 4, bias=False, batch_first=True),
    lambda: numbers(5, 3),
    lambda x: x,
    first,
)
known(
    "last state of a gru",
    lambda: nn.GRU(3, 4, 2, batch_first=True),
    lambda: numbers(5, 3),
    lambda x: x,
    lambda o: o[1].transpose(0, 1).flatten(1),
)
known("lstm", lambda: nn.LSTM(3, 4, batch_first=True), lambda: numbers(6, 3), lambda x: x, first)
known(
    "cell of an lstm, both ways",
    lambda: nn.LSTM(3, 4, batch_first=True, bidirectional=True),
    lambda: numbers(6, 3),
    lambda x: x,
    lambda o: o[1][1].transpose(0, 1).flatten(1),
)
known(
    "lstm with a projection",
    lambda: nn.LSTM(3, 6, 2, proj_size=2, batch_first=True),
    lambda: numbers(6, 3),
    lambda x: x,
    first,
)
known("rnn", lambda: nn.RNN(3, 4, batch_first=True), lambda: numbers(6, 3), lambda x: x, first)
known(
    "rnn, relu",
    lambda: nn.RNN(3, 4, 2, nonlinearity="relu"),
    lambda: numbers(6, 3),
    time_major,
    last_step,
)


class Cells(nn.Module):
    """Cells, called once per step; and a layer that is called as often."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.cell, self.again = getattr(nn, kind)(3, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, obs: Tensor) -> Tensor:
        state: Any = None
        for step in obs.unbind(1):
            state = self.cell(step, state)
            h = state[0] if isinstance(state, tuple) else state
            h = self.again(h).tanh()
            state = (h, state[1]) if isinstance(state, tuple) else h
        return self.head(h)


for kind in ("GRUCell", "LSTMCell", "RNNCell"):
    KNOWN[kind] = lambda kind=kind: (Cells(kind), numbers(5, 3))


class Language(nn.Module):
    """The embedding is the output layer too."""

    def __init__(self, padding_idx: int | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, 4, padding_idx=padding_idx)
        self.rnn = nn.GRU(4, 4, batch_first=True)

    def forward(self, obs: Tensor) -> Tensor:
        return F.linear(self.rnn(self.embedding(obs))[0].mean(1), self.embedding.weight)


KNOWN["tied decoder"] = lambda: (Language(), words(6) % CLASSES)
KNOWN["tied decoder and padding"] = lambda: (Language(padding_idx=1), words(6) % CLASSES)


class TwoNames(nn.Module):
    """One layer under two names and in a list, called three times; a weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = self.a
        self.all = nn.ModuleList([self.a, nn.Linear(4, 4)])
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.a.weight
        self.plain = [self.a]
        self.head = nn.Linear(4, CLASSES)

    def forward(self, obs: Tensor) -> Tensor:
        hidden = self.b(self.a(obs).tanh()).tanh()
        for layer in (*self.all, *self.plain, self.tied):
            hidden = layer(hidden).tanh()
        return self.head(hidden)


class Frozen(nn.Module):
    """Layers that do not learn, one that reaches no loss, and one that is read without a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 2, 2)
        self.conv.requires_grad_(False)
        self.norm = nn.BatchNorm1d(2)
        self.middle = nn.Linear(6, 4)
        self.middle.bias.requires_grad_(False)
        self.unused = nn.Linear(4, 4)
        self.head = nn.Linear(4, CLASSES)
        self.read = nn.Linear(4, CLASSES)

    def forward(self, obs: Tensor) -> Tensor:
        hidden = self.middle(self.norm(self.conv(obs[:, None])).flatten(1))
        hidden = F.relu(hidden, inplace=True)
        with torch.no_grad():
            shift = self.read(hidden)
        return self.head(hidden) + shift


KNOWN["two names"] = lambda: (TwoNames(), numbers(4))
KNOWN["frozen"] = lambda: (Frozen(), numbers(4))


@pytest.mark.parametrize("of", [torch.square, torch.abs])
@pytest.mark.parametrize("name", KNOWN)
def test_rows_of_known_layers_need_no_loop(
    name: str, of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    agent, obs = KNOWN[name]()

    def refuse(*args: Any) -> Any:
        raise AssertionError(f"row by row: {sorted(args[1])}")

    monkeypatch.setattr(importance, "_sums_row_by_row", refuse)
    check(agent, obs, of=of)


class Attention(nn.Module):
    """What its layers share is one weight for three products, and read without its layer."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.randn(6, 1, 4) if not batch_first else torch.randn(1, 6, 4))
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=batch_first)
        self.head, self.batch_first = nn.Linear(4, CLASSES), batch_first

    def forward(self, obs: Tensor) -> Tensor:
        x = obs if self.batch_first else obs.transpose(0, 1)
        x = self.layer(x + self.place)
        return self.head(x.mean(1 if self.batch_first else 0))


class Packed(nn.Module):
    """Sequences of different lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, CLASSES)

    def forward(self, obs: Tensor) -> Tensor:
        lengths = (obs[:, :, 0] < 1.5).long().cumprod(1).sum(1).clamp(min=1)
        packed = nn.utils.rnn.pack_padded_sequence(
            obs, lengths, batch_first=True, enforce_sorted=False
        )
        return self.head(self.rnn(packed)[1][0])


class Chosen(nn.Module):
    """Which of two layers a row meets depends on the row."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Linear(4, CLASSES), nn.Linear(4, CLASSES)

    def forward(self, obs: Tensor) -> Tensor:
        out = obs.new_zeros(len(obs), CLASSES)
        high = obs[:, 0] > 0
        out[high], out[~high] = self.high(obs[high]), self.low(obs[~high])
        return out


class TwoKinds(nn.Module):
    """One weight in a convolution of one group and in one of two, and in a product."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 2, 1))
        self.head = nn.Linear(12, CLASSES)

    def forward(self, obs: Tensor) -> Tensor:
        hidden = F.conv1d(obs, self.weight)
        hidden = F.conv1d(hidden, self.weight, groups=2).tanh()
        return self.head(hidden.flatten(1)) + (obs.mT @ self.weight[:, :, 0].T).sum((1, 2))[:, None]


class Mixed(nn.Module):
    """Half of it in half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 6), nn.Linear(6, CLASSES)

    def forward(self, obs: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self.first(obs)
        return self.head(hidden.float().tanh())


def normed(kind: Any) -> nn.Module:
    agent = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, CLASSES))
    kind(agent[0])
    return agent


OTHERS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "attention": lambda: (Attention(batch_first=True), numbers(6, 4)),
    # As many steps as rows: which of the two dimensions is that of the rows?
    "attention, time-major": lambda: (Attention(batch_first=False), numbers(6, 4)),
    "two kinds": lambda: (TwoKinds(), numbers(2, 3)),
    "packed": lambda: (Packed(), numbers(5, 3)),
    "chosen": lambda: (Chosen(), numbers(4)),
    "weight norm": lambda: (normed(parametrizations.weight_norm), numbers(4)),
    "spectral norm": lambda: (normed(parametrizations.spectral_norm), numbers(4)),
    "orthogonal": lambda: (normed(parametrizations.orthogonal), numbers(4)),
    "prelu": lambda: (
        nn.Sequential(nn.Linear(4, 4), nn.PReLU(4), nn.Linear(4, CLASSES)),
        numbers(4),
    ),
    "bilinear": lambda: (Then(nn.PReLU(), numbers(3, 4)), numbers(3, 4)),
    "transposed": lambda: (Then(nn.ConvTranspose2d(2, 3, 2), numbers(2, 3, 3)), numbers(2, 3, 3)),
    "frequencies": lambda: (Then(nn.Embedding(7, 3, scale_grad_by_freq=True), words(6)), words(6)),
}


@pytest.mark.parametrize("of", [torch.square, torch.abs])
@pytest.mark.parametrize("name", OTHERS)
def test_rows_of_other_layers_are_right_too(name: str, of: Any) -> None:
    torch.manual_seed(0)
    check(*OTHERS[name](), of=of)


def test_as_many_steps_as_rows_are_not_mistaken_for_rows() -> None:
    torch.manual_seed(0)
    obs = numbers(6, 3)
    check(Then(nn.Linear(3, 4), obs, time_major, lambda y: y.transpose(0, 1).flatten(1)), obs)
    check(Then(nn.GRU(3, 4), obs, time_major, last_step), obs)


class Elsewhere(nn.Module):
    """Some rows use the layer's weight without the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, CLASSES)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs) + obs[:, :1] * (obs @ self.layer.weight.T)


def test_what_some_rows_do_with_a_weight_is_noticed_whichever_are_looked_at() -> None:
    torch.manual_seed(0)
    obs = numbers(4)
    obs[[0, 1, 6, 7], 0] = 0  # In each batch those that count for the most do nothing else.

    def value(output: Tensor, batch: Batch) -> Tensor:
        return output.sum(1) * torch.where(batch.obs[:, 0] == 0, 10.0, 1.0)

    check(Elsewhere(), obs, value)


def each_class(output: Tensor, batch: Batch) -> Tensor:
    return output.log_softmax(1) * output.detach().softmax(1).sqrt()


@pytest.mark.parametrize("of", [torch.square, torch.abs])
@pytest.mark.parametrize(
    "name", ["gru", "conv2d, groups", "two names", "linear of a grid", "attention"]
)
def test_a_row_may_have_several_values(name: str, of: Any) -> None:
    torch.manual_seed(0)
    check(*(KNOWN | OTHERS)[name](), each_class, of=of)


@pytest.mark.parametrize("name", ["gru", "attention"])
def test_a_value_may_depend_on_the_task_of_its_row(name: str) -> None:
    def value(output: Tensor, batch: Batch) -> Tensor:
        return log_likelihood(output, batch) * (1 + 9 * batch.task)

    torch.manual_seed(0)
    check(*(KNOWN | OTHERS)[name](), value)


def test_a_model_with_precisions_of_its_own_has_importances_too() -> None:
    agent, rows = Mixed(), Rows(numbers(4))
    found = mean_over_rows(agent, rows, log_likelihood, of=torch.square)  # type: ignore[arg-type]
    expected = one_by_one(agent, rows, log_likelihood, torch.square)
    for name, importance_ in found.items():
        torch.testing.assert_close(importance_, expected[name], rtol=0.05, atol=1e-3)


def test_a_task_that_is_known_by_heart_has_no_importance_left() -> None:
    agent = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, CLASSES))
    rows = Rows(numbers(4))
    with torch.no_grad():
        agent[2].weight.zero_()
        agent[2].bias.copy_(torch.tensor([1e3, 0, 0, 0, 0]))
    rows.batch["label"] = torch.zeros(ROWS, dtype=torch.int64)
    found = mean_over_rows(agent, rows, log_likelihood, of=torch.square)  # type: ignore[arg-type]
    assert not any(importance_.any() for importance_ in found.values())


def test_recurrent_layers_do_without_cudnn_which_has_no_gradients_in_evaluation() -> None:
    class Noting(Cells):
        def forward(self, obs: Tensor) -> Tensor:
            self.met = torch.backends.cudnn.enabled
            return super().forward(obs)

    agent, rows = Noting("GRUCell"), Rows(numbers(5, 3))
    for whether in (True, False):
        if not whether:
            agent.rnn = nn.GRU(3, 4)  # Of cells there is none of cuDNN's.
        mean_over_rows(agent, rows, log_likelihood, of=torch.square)  # type: ignore[arg-type]
        assert agent.met is whether
        assert torch.backends.cudnn.enabled


class Random(nn.Module):
    """Draws in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, CLASSES)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(F.dropout(obs, 0.3))


def test_what_a_model_draws_meanwhile_moves_no_stream_of_training() -> None:
    agent, rows = Random(), Rows(numbers(4))
    before = torch.get_rng_state()
    mean_over_rows(agent, rows, log_likelihood, of=torch.square)  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), before)


class Scaled(nn.Module):
    """Whose weights are used in no layer of a known kind."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, CLASSES))

    def forward(self, obs: Tensor) -> Tensor:
        return obs @ self.weight


@pytest.mark.parametrize("of_known_kind", [True, False])
def test_many_rows_of_16_bits_are_added_up(of_known_kind: bool) -> None:
    agent = nn.Linear(4, CLASSES) if of_known_kind else Scaled()
    obs = numbers(4)[:1].expand(1200, 4)
    exact = mean_over_rows(agent, Rows(obs), log_likelihood, of=torch.square)  # type: ignore[arg-type]
    agent.bfloat16()
    rows = Rows(obs.bfloat16())
    for name, found in mean_over_rows(agent, rows, log_likelihood, of=torch.square).items():  # type: ignore[arg-type]
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), exact[name], rtol=0.05, atol=0.01)
