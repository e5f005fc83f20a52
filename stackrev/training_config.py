"""How a model is trained, as a frozen configuration. Imports no torch; see `config.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stackrev.config import Between, Settings, setting
from stackrev.errors import ConfigError

Optimizer = Literal["adam", "adamw", "rmsprop", "sgd"]
Schedule = Literal["constant", "cosine", "linear", "step"]
Settle = Literal["none", "plain", "certified"]
Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Settings):
    """How a model is trained.

    A *check* scores the held-out sets every `check_every` batches: 100 strings of each, and all where that matters. A
    run is *solved* at its first check with coarse accuracy 1 on validation and test. Then it settles, as `settle` says,
    and ends at the first check from then on that is right, or after `batches`:

    - "none": at once.
    - "plain": `settle_batches` later (never, if None).
    - "certified": `settle_batches` later at the earliest, as soon as bounds that hold for strings of every length
      close; until then they are part of the loss (see `training/certified.py`).
      A run of a task that no proof is about goes on as with "plain".
    - A run that was solved, and is wrong in the end, is given the weights with which everything was last found right.

    Three things make a solved run exact on much longer strings. The loss divides the logits by `settle_temperature`, so
    that they have to differ by more. `recurrent_l1` is an L1 penalty on the recurrent weights beside the optimizer:
    after each of its steps the absolute weights fall by so much, to 0 at the least (and by less where the learning
    rate has fallen). And `cell_l2`, for models with a stack, a queue or a deque, is the weight of a penalty on cells:
    `cell_l2` times the mean square of the encoder's cells after its last step is added to the loss, and the same of the
    decoder's. A cell that adds something up at every step grows with the string, and misleads where a string is longer
    than those of training; with the penalty it comes to forget. (Merity et al. 2017 penalise an LSTM's outputs instead,
    at all steps.)

    Where the last few strings take long to be right, dividing the logits helps before the run is solved too: with
    `sharpen_from` below 1 it begins at the first check with at least that coarse accuracy on both sets.

    Four more drive an LSTM's gates towards 0 and 1, so that what it keeps and counts over many steps stays right on
    much longer strings. `symbol_noise` is the standard deviation of noise on the weights of symbols: those by which a
    symbol adds to the gates' pre-activations, or in the LSTM and the RNN its embedding. It is drawn anew for each
    batch, from when the curriculum has reached the longest strings until the run has settled (noise on weights is that
    of Jim et al. 1996); `settle_noise` takes its place once the run is solved. `settle_growth` is by what share all
    weights and biases of the cells grow after each of the `settle_batches`, and the noise on them: an LSTM with
    saturated gates is a machine with counters (Merrill et al. 2020). Such a run ends with these batches even if it is
    wrong then, unless it settles for a proof. So that training comes to rest, the learning rate falls linearly to a
    share of `settle_rate` over the `settle_batches` (if there is a number of them).

    Where the model's `cell_stretch` is above 0, the LSTMs' gates can be 0 and 1 exactly. Where they
    are, they have no gradient, and runs may take longer to be solved. With `stretch_batches`, the gates are the usual
    ones until the run is solved, and from there on they are stretched a little more with each of so many batches, or
    with as many as the run goes on for.

    Some runs learn a wrong use of the memory and never leave it. With `restart_batches`, a run starts over with new
    weights at the first check after so many batches, if no check since its first batch has found half of the strings of
    both sets right; this may happen several times. `batches` counts all starts. Optimiser and curriculum begin anew,
    and so do warm-up and schedule, which then span the batches that are left.

    With `curriculum_start`, strings are at most that long at first, and one symbol longer after every batch whose loss
    is below `curriculum_loss`. With `least_share`, none is shorter than that share of the longest allowed by then,
    until the run is solved.
    """

    seed: int = setting(0, "Decides initial weights, batches and noise.", low=0, high=2**63 - 1)
    batches: int = setting(1000, "How many batches to train for at most.", low=1, high=10**9, resumable=True)
    batch_size: int = setting(50, "Strings in a batch.", low=1, high=100_000)
    mixed_lengths: bool = setting(True, "Whether lengths differ in a batch.")
    curriculum_start: int | None = setting(
        8, "Begin with strings at most so long; none for no curriculum.", low=1, high=10**9
    )
    curriculum_loss: float = setting(
        1.0, "Allow one symbol more after each batch with a loss below this.", above=0, high=100
    )
    least_share: float = setting(
        0.0, "Until solved, leave out strings shorter than this share of the longest.", low=0, high=1
    )
    restart_batches: int | None = setting(
        None,
        "Start over with new weights after so many batches if no check found half of both sets right; none for never.",
        low=1,
        high=10**9,
    )
    optimizer: Optimizer = setting("adam", "The optimiser.", search=("adam", "adamw", "rmsprop", "sgd"))
    learning_rate: float = setting(8e-3, "The learning rate.", above=0, high=100, search=Between(1e-4, 1e-1, log=True))
    weight_decay: float = setting(0.0, "The optimiser's weight decay.", low=0, high=100)
    momentum: float = setting(0.0, "The momentum of sgd and rmsprop.", low=0, below=1)
    schedule: Schedule = setting("constant", "How the learning rate falls.")
    warmup_batches: int = setting(0, "Over how many batches it first rises.", low=0)
    clip_norm: float = setting(
        1.0, "The largest norm of a gradient; inf for any.", above=0, range_note="inf turns clipping off"
    )
    recurrent_l1: float = setting(
        0.001, "By how much recurrent weights shrink after each batch, once solved.", low=0, high=100
    )
    cell_l2: float = setting(
        0.0,
        "Penalty on large cells at a string's end, with a stack, queue or deque, once solved.",
        low=0,
        high=100,
    )
    stretch_batches: int | None = setting(
        None,
        "Over how many batches the cells' gates come to be stretched once solved; none to stretch them all along.",
        low=1,
        high=10**9,
    )
    symbol_noise: float = setting(0.0, "Noise on what symbols add to the gates, in training.", low=0, high=100)
    check_every: int = setting(50, "Batches between two checks on held-out strings.", low=1, high=10**9, resumable=True)
    settle: Settle = setting(
        "plain", "How to go on once solved; certified: until it is provably right at every length."
    )
    settle_batches: int | None = setting(
        100,
        "Batches to train on once all held-out strings are right; none to do all batches.",
        low=0,
        high=10**9,
        resumable=True,
    )
    settle_noise: float | None = setting(
        None, "Noise on symbols while the run settles; none for as much as before.", low=0, high=100
    )
    settle_growth: float = setting(0.0, "By how much cells' weights grow with each batch to settle.", low=0, high=1)
    settle_rate: float = setting(1.0, "To what share the learning rate falls while the run settles.", above=0, high=1)
    settle_temperature: float = setting(3.0, "What the loss divides the logits by, once solved.", above=0, high=100)
    sharpen_from: float = setting(
        1.0, "Divide the logits already from this share of held-out strings right.", low=0, high=1
    )
    device: Device = setting(
        "auto", "Where to compute; auto is the CPU for what has compiled kernels, else a GPU if any.", resumable=True
    )

    @property
    def settles_by_number(self) -> bool:
        """Whether what a batch does while the run settles depends on how many `settle_batches` there are."""
        noise = self.symbol_noise if self.settle_noise is None else self.settle_noise
        return self.settle_rate < 1 or self.settle_growth > 0 or noise > 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.momentum and self.optimizer not in ("sgd", "rmsprop"):
            raise ConfigError(
                "momentum goes with sgd or rmsprop",
                hint="give --momentum 0 (momentum=0), or choose one of them by --optimizer",
            )
        if self.warmup_batches > self.batches:
            raise ConfigError(
                f"warmup_batches is {self.warmup_batches:,}, more than the {self.batches:,} of batches",
                hint=f"give --warmup-batches {self.batches} (warmup_batches={self.batches}) or fewer, or more batches",
            )
