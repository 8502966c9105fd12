"""A GRU on sentences of different lengths in plain PyTorch, one file: what `ml` is compared with in
benchmarks/language.py.

    python benchmarks/plain/language.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence


class GRU(nn.Module):
    """An embedding, a GRU over the real steps, and a linear layer."""

    def __init__(self, num_embeddings: int, num_classes: int, width: int = 64):
        super().__init__()
        self.embed = nn.Embedding(num_embeddings, width)
        self.memory = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, num_classes)

    def forward(self, obs: Tensor, length: Tensor) -> Tensor:
        """Sentences int64 `[B, T]`, padded, and their lengths `[B]`, to logits `[B, num_classes]`."""
        steps = pack_padded_sequence(
            self.embed(obs), length.cpu(), batch_first=True, enforce_sorted=False
        )
        output: Tensor = self.head(self.memory(steps)[1][-1])
        return output


def padded(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Sentences as one tensor, int64 `[B, T]`, and their lengths, int64 `[B]`."""
    return pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])


def train(
    model: nn.Module,
    rows: list[Tensor],
    labels: Tensor,
    *,
    epochs: int,
    batch_size: int = 32,
    orders: torch.Generator | None = None,
) -> None:
    """Learn sentences and their languages, int64 `[N]`, with AdamW; `orders` shuffles them."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(epochs):
        for index in torch.randperm(len(rows), generator=orders).split(batch_size):
            obs, length = padded([rows[i] for i in index.tolist()])
            loss = F.cross_entropy(model(obs, length), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, rows: list[Tensor], labels: Tensor) -> float:
    """The share of sentences whose language is recognised, in batches of 1,000."""
    model.eval()
    right = 0
    for start in range(0, len(rows), 1000):
        obs, length = padded(rows[start : start + 1000])
        right += int((model(obs, length).argmax(1) == labels[start : start + 1000]).sum())
    return right / len(rows)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from antelope.envs import Language

    torch.set_num_threads(1)
    torch.manual_seed(0)
    learnt, held_out = Language(), Language(train=False)
    model = GRU(20, 10)
    train(model, [row for row, _ in learnt], learnt.targets, epochs=10)  # type: ignore[misc]
    print(f"{accuracy(model, [row for row, _ in held_out], held_out.targets):.3f}")  # type: ignore[misc]
