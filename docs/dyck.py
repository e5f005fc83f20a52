"""A model of one's own around a neural stack: which bracket has to close next? Run it with `python docs/dyck.py`."""

import sys

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from stackrev import NeuralStack

KINDS, LENGTH, BATCHES = 8, 32, 600  # kinds of brackets, how long strings get in training, how many batches of 32


def draw(length: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Brackets [T, B], k opening and KINDS + k closing, the first never closed; and at each step the innermost open."""
    choices = torch.randint(2 * KINDS, (count, length), generator=generator).tolist()
    brackets, wanted = [], []
    for row in choices:
        open_: list[int] = []
        for choice in row:
            if choice < KINDS or len(open_) < 2:
                open_.append(choice % KINDS)
                brackets.append(open_[-1])
            else:
                brackets.append(KINDS + open_.pop())
            wanted.append(open_[-1])
    return torch.tensor(brackets).view(count, length).T, torch.tensor(wanted).view(count, length).T


class Brackets(nn.Module):
    """An LSTM that works a stack: it decides when to push and to pop, and the answer is what is read there."""

    def __init__(self, hidden: int = 8, width: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(2 * KINDS, 16)
        self.lstm = nn.LSTM(16, hidden)
        self.gates = nn.Linear(hidden, 2)
        self.values = nn.Linear(16, width)  # of the bracket alone: the stack remembers it, and the LSTM cannot
        self.stack = NeuralStack(width)
        self.answer = nn.Linear(width, KINDS)

    def forward(self, brackets: Tensor, noise: float = 0.0) -> Tensor:
        embedded = self.embedding(brackets)
        gates = self.gates(self.lstm(embedded)[0])
        gates = gates + noise * torch.randn(gates.shape)  # so that they learn to be far from the middle
        push, pop = (1.1 * gates.sigmoid() - 0.05).clamp(0, 1).unbind(-1)  # exactly 0 and 1 are within reach
        reads, _ = self.stack(self.values(embedded).tanh(), push, pop)  # all steps at once
        return self.answer(reads)  # [T, B, KINDS]


def train(seed: int, batches: int = BATCHES) -> Brackets:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model, length = Brackets(), 4
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for batch in range(batches):
        done = batch / batches
        brackets, wanted = draw(length, 32, generator)
        logits = model(brackets, noise=max(0.5, 3 * done - 1))
        asked = brackets >= (KINDS if done < 0.5 else 0)  # at first where one closes: what has just opened is too easy
        loss = cross_entropy(logits[asked], wanted[asked])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        length = min(LENGTH, length + (loss.item() < 1))
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
