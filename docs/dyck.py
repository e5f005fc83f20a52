"""A model of one's own around a neural stack: which bracket has to close next? Run it with `python docs/dyck.py`."""

import sys

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from stackrev import NeuralStack

KINDS, LENGTH, BATCHES = 8, 32, 1200  # kinds of brackets, how long strings are in training, how many batches of 32


def draw(length: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Brackets [T, B], k opening and KINDS + k closing, and at each step the innermost that is open, or else KINDS."""
    choices = torch.randint(2 * KINDS, (count, length), generator=generator).tolist()
    brackets, wanted = [], []
    for row in choices:
        open_: list[int] = []
        for choice in row:
            if choice < KINDS or not open_:
                open_.append(choice % KINDS)
                brackets.append(open_[-1])
            else:
                brackets.append(KINDS + open_.pop())
            wanted.append(open_[-1] if open_ else KINDS)
    return torch.tensor(brackets).view(count, length).T, torch.tensor(wanted).view(count, length).T


class Brackets(nn.Module):
    """An LSTM that works a stack, and answers from what it reads there."""

    def __init__(self, hidden: int = 8, width: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(2 * KINDS, 16)
        self.lstm = nn.LSTM(16, hidden)
        self.gates, self.values = nn.Linear(hidden, 2), nn.Linear(hidden, width)
        self.stack = NeuralStack(width)
        self.answer = nn.Linear(width, KINDS + 1)

    def forward(self, brackets: Tensor, noise: float = 0.0) -> Tensor:
        hidden, _ = self.lstm(self.embedding(brackets))  # [T, B, hidden]
        gates = self.gates(hidden)
        gates = gates + noise * torch.randn(gates.shape)  # so that they learn to be far from the middle
        push, pop = (1.1 * gates.sigmoid() - 0.05).clamp(0, 1).unbind(-1)  # exactly 0 and 1 are within reach
        reads, _ = self.stack(self.values(hidden).tanh(), push, pop)  # all steps at once
        return self.answer(reads)  # [T, B, KINDS + 1]


def train(seed: int, batches: int = BATCHES) -> Brackets:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = Brackets()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for batch in range(batches):
        brackets, wanted = draw(LENGTH, 32, generator)
        logits = model(brackets, noise=max(0.0, 4 * batch / batches - 2))
        cross_entropy(logits.flatten(0, 1), wanted.flatten()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model


@torch.no_grad()
def score(model: Brackets, length: int, strings: int = 1000) -> float:
    """The share of strings, all new, of which every step is right."""
    brackets, wanted = draw(length, strings, torch.Generator().manual_seed(2**32))
    return (model(brackets).argmax(-1) == wanted).all(0).double().mean().item()


if __name__ == "__main__":
    for seed in map(int, sys.argv[1:] or ["0"]):
        model = train(seed)
        scores = [f"{length} brackets {score(model, length):.3f}" for length in (LENGTH, 6 * LENGTH)]
        print(f"seed {seed}: {', '.join(scores)}", flush=True)
