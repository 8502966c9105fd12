"""A strategy of your own: experience replay in 15 lines, around any model.

python examples/strategy.py
python examples/strategy.py dataset=MNIST data_dir=../shared/data epochs=1 strategy=[rehearsal,si]
"""

import sys

import torch

from antelope import Batch, Memory, ml, register


@register("rehearsal")
class Rehearsal:
    def __init__(self, capacity=200):
        self.memory = Memory(capacity)  # A reservoir; saved and resumed with the strategy.

    def before_batch(self, agent, batch):
        self.new = batch
        if not len(self.memory):
            return batch
        past = self.memory.sample(len(batch))
        return Batch(**{name: torch.cat((batch[name], past[name])) for name in batch})

    def after_step(self, agent, batch):
        self.memory.add(self.new)


if __name__ == "__main__":
    run = ml(*sys.argv[1:], tasks=5, epochs=3, strategy=Rehearsal)
    print(run.accuracy_matrix.round(3))
    print({name: round(value, 3) for name, value in run.metrics.items()})
