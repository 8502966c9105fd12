"""The digits with the Trainer of Hugging Face transformers, for benchmarks/faults.py.

It saves once per epoch, keeps the newest three checkpoints, and resumes by `get_last_checkpoint`, as its
examples do.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from .digits import Network, Options, Watch, digits, write_result

NAME = f"transformers {transformers.__version__}"
CHECKPOINTS = "checkpoints/checkpoint-*"  # Resumes from the one with the largest number.
GUARD = "logging_nan_inf_filter=False"


class Rows(Dataset[dict[str, Tensor]]):
    def __init__(self, pixels: Tensor, labels: Tensor):
        self.pixels, self.labels = pixels, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"pixels": self.pixels[i], "labels": self.labels[i]}


class Digits(nn.Module):
    def __init__(self, network: Network, watch: Watch):
        super().__init__()
        self.network, self.watch, self.step = network, watch, 0

    def forward(self, pixels: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.network(pixels)
        loss = F.cross_entropy(logits, labels)
        if self.training:
            loss = self.watch.step(self.step, loss, len(labels))
        else:
            self.watch.evaluates(len(labels))
        return {"loss": loss, "logits": logits}


class Counts(TrainerCallback):
    """Tells the model the step, which a model cannot ask the Trainer for."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        more["model"].step = state.global_step


def train(options: Options, watch: Watch) -> None:
    """Train in the working directory, from its last checkpoint if there is one."""
    set_seed(options.seed)
    train_set, test_set = (Rows(*part) for part in digits(options.rows))
    arguments = TrainingArguments(
        "checkpoints",
        use_cpu=True,
        seed=options.seed,
        per_device_train_batch_size=64,
        per_device_eval_batch_size=64,
        num_train_epochs=options.epochs,
        learning_rate=1e-2,
        save_strategy="epoch",
        save_total_limit=3,
        eval_strategy="epoch" if options.eval_every is None else "steps",
        eval_steps=options.eval_every,
        logging_steps=options.log_every,
        # The filter hides a loss that is NaN from the log.
        logging_nan_inf_filter=not options.guard,
        dataloader_drop_last=options.drop_last,
        report_to=[],
        disable_tqdm=True,
    )
    model = Digits(Network(options.hidden, options.kind), watch)

    def measured(found: Any) -> dict[str, float]:
        return {"accuracy": float((found.predictions.argmax(1) == found.label_ids).mean())}

    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=train_set,
        eval_dataset=test_set,
        compute_metrics=measured,
        callbacks=[Counts()],
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint("checkpoints"))
    write_result(model.network, watch)
