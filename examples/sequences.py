"""Sequences of different lengths: `forward` names `length`, or `mask` (True at real steps), and receives it.

python examples/sequences.py
"""

import sys

from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from antelope import ml


class GRU(nn.Module):
    def __init__(self, num_embeddings, num_classes, width=64):
        super().__init__()
        self.embed, self.head = nn.Embedding(num_embeddings, width), nn.Linear(width, num_classes)
        self.memory = nn.GRU(width, width, batch_first=True)

    def forward(self, obs, length):  # int64 [B, T] and [B].
        steps = pack_padded_sequence(self.embed(obs), length.cpu(), True, enforce_sorted=False)
        return self.head(self.memory(steps)[1][-1])


class Transformer(nn.Module):
    def __init__(self, num_embeddings, num_classes, spec, width=64):
        super().__init__()
        self.embed, self.head = nn.Embedding(num_embeddings, width), nn.Linear(width, num_classes)
        self.positions = nn.Embedding(spec.obs.shape[0], width)  # Up to the longest sentence.
        layer = nn.TransformerEncoderLayer(width, 4, 128, 0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, obs, mask):  # int64 and bool [B, T].
        steps = self.embed(obs) + self.positions.weight[: obs.shape[1]]
        steps = self.encoder(steps, src_key_padding_mask=~mask) * mask[..., None]
        return self.head(steps.sum(1) / mask.sum(1, keepdim=True))


if __name__ == "__main__":
    for model in (GRU, Transformer):
        run = ml("lr=3e-3", "batch_size=128", *sys.argv[1:], task="classify/language", model=model)
        print(f"{model.__name__}: {run.metrics['accuracy']:.3f} on held-out sentences")
