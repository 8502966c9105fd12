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

from .digits import Network, Options, Watch, digits, write_result

NAME = f"Lightning {L.__version__}"
CHECKPOINTS = "checkpoints/last.ckpt"  # Resumes from it.
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


def train(options: Options, watch: Watch) -> None:
    """Train in the working directory, from its last checkpoint if there is one."""
    L.seed_everything(options.seed, workers=True)
    train_set, test_set = (TensorDataset(*part) for part in digits(options.rows))
    callbacks: list[Any] = [
        ModelCheckpoint("checkpoints", monitor="step", mode="max", save_top_k=3, save_last=True)
    ]
    if options.guard:
        callbacks += [
            EarlyStopping("loss", patience=10**6, check_finite=True, check_on_train_epoch_end=True)
        ]
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=options.epochs,
        callbacks=callbacks,
        logger=CSVLogger("."),
        log_every_n_steps=options.log_every,
        val_check_interval=options.eval_every,
        check_val_every_n_epoch=1 if options.eval_every is None else None,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = Digits(Network(options.hidden, options.kind), watch)
    trainer.fit(
        model,
        DataLoader(train_set, 64, shuffle=True, drop_last=options.drop_last),
        DataLoader(test_set, 64),
        ckpt_path="last",
    )
    write_result(model.network, watch)
