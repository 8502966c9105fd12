"""Five tasks in a loop of your own: Antelope provides the data and the strategies, and nothing else.

python examples/own_loop.py
"""

import torch
import torch.nn.functional as F
from torch import nn

import antelope

if __name__ == "__main__":
    torch.manual_seed(0)
    tasks = antelope.tasks("Digits", tasks=5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    strategies = antelope.Strategies(model, ["er", "lwf"], tasks.spec)
    optimizer = torch.optim.AdamW(model.parameters())
    matrix = torch.full((len(tasks), len(tasks)), float("nan"))
    for task in tasks:
        strategies.begin_task(task, optimizer)
        for _ in range(5):
            for batch in task.train:
                loss = F.cross_entropy(model(batch.obs), batch.label)
                loss = strategies.after_loss(batch, loss)
                optimizer.zero_grad()
                loss.backward()
                strategies.after_backward()
                optimizer.step()
                strategies.after_step(batch)
        strategies.end_task(task)
        for seen in tasks[: task.number + 1]:
            right = [strategies.predict(b.obs).argmax(1) == b.label for b in seen.test]
            matrix[task.number, seen.number] = torch.cat(right).float().mean()
    print("Row: after learning task i. Column: accuracy on task j.")
    print(matrix)
