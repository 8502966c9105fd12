"""The digits with Lightning, for benchmarks/faults.py.

It saves once per epoch, keeps the newest three checkpoints, and resumes by `ckpt_path="last"`.
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

from .digits import Network, Watch, digits, write_result

NAME = f"Lightning {L.__version__}"
CHECKPOINTS = "checkpoints/last.ckpt"  # What is resumed from.
GUARD = "EarlyStopping(check_finite=True)"


class Digits(L.LightningModule):
    def __init__(self, network: Network, watch: Watch):
        super().__init__()
        self.network, self.watch = network, watch

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        pixels, labels = batch
        loss = F.cross_entropy(self.network(pixels), labels)
        loss = self.watch.step(self.global_step, loss, len(labels))
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pixels, labels = batch
        output = self.network(pixels)
        self.watch.evaluates(len(labels))
        self.log("accuracy", (output.argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 1e-2)


def train(
    *,
    seed: int = 0,
    epochs: int = 8,
    hidden: int = 32,
    kind: str = "plain",
    rows: int | None = None,
    drop_last: bool = False,
    log_every: int = 10,
    eval_every: int | None = None,
    guard: bool = False,
    watch: Watch,
) -> None:
    """Train in the working directory, from its last checkpoint if there is one.

    Args:
        eval_every: Steps; None: an epoch.
        guard: Whether `EarlyStopping` looks for a loss that is NaN.
    """
    L.seed_everything(seed, workers=True)
    train_set, test_set = (TensorDataset(*part) for part in digits(rows))
    callbacks: list[Any] = [
        ModelCheckpoint("checkpoints", monitor="step", mode="max", save_top_k=3, save_last=True)
    ]
    if guard:
        callbacks += [
            EarlyStopping("loss", patience=10**6, check_finite=True, check_on_train_epoch_end=True)
        ]
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        callbacks=callbacks,
        logger=CSVLogger("."),
        log_every_n_steps=log_every,
        val_check_interval=eval_every,
        check_val_every_n_epoch=1 if eval_every is None else None,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = Digits(Network(hidden, kind), watch)
    trainer.fit(
        model,
        DataLoader(train_set, 64, shuffle=True, drop_last=drop_last),
        DataLoader(test_set, 64),
        ckpt_path="last",
    )
    write_result(model.network, watch)
