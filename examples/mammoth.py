"""Experience replay as written for Mammoth Lite; only the import line differs.

python examples/mammoth.py
python examples/mammoth.py dataset=MNIST data_dir=../shared/data epochs=1 model.buffer_size=500
"""

import sys

import torch

from antelope import ml
from antelope.launcher.mammoth import Buffer, ContinualModel, add_rehearsal_args


class Er(ContinualModel):
    @staticmethod
    def get_parser(parser):
        add_rehearsal_args(parser)  # Becomes the settings model.buffer_size, model.minibatch_size.
        return parser

    def __init__(self, backbone, loss, args, transform, dataset=None):
        super().__init__(backbone, loss, args, transform, dataset=dataset)
        self.buffer = Buffer(self.args.buffer_size)

    def observe(self, inputs, labels, not_aug_inputs, epoch=None):
        x, y = inputs, labels
        if not self.buffer.is_empty():
            past = self.buffer.get_data(self.args.minibatch_size, transform=self.transform)
            x, y = torch.cat((x, past[0])), torch.cat((y, past[1]))
        self.opt.zero_grad()
        loss = self.loss(self.net(x), y)
        loss.backward()
        self.opt.step()
        self.buffer.add_data(not_aug_inputs, labels=labels)
        return loss.item()


if __name__ == "__main__":
    run = ml(*sys.argv[1:], model={"_target_": Er, "buffer_size": 200}, tasks=5, epochs=3, lr=0.1)
    print(run.accuracy_matrix.round(3))
