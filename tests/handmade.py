"""A stack-LSTM that reverses strings of any length, its weights set by hand."""

from __future__ import annotations

import torch

from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.models.stack_lstm import StackLSTMReverser
from stackrev.tasks import vocabulary

BITS = 7
CONFIG = StackLSTMConfig(hidden_size=BITS + 1, layers=1, stack_width=BITS, gate_stretch=0.05, shared_controls=True)
FIRM = 20.0  # far enough out that a sigmoid or a tanh is at its end


@torch.no_grad()
def handmade_reverser(config: StackLSTMConfig = CONFIG) -> StackLSTMReverser:
    """One hidden unit for each bit of a symbol, 1 or -1, and one that tells reading from writing.

    Reading, each step pushes the symbol's bits whole; `$` has none, so it pushes zeros. Writing, each step shows the
    bits that were read, then pops a whole element and reads the next. When it reads the zeros of `$`, it writes `&`.
    """
    model = StackLSTMReverser(config, torch.Generator().manual_seed(0))
    for parameter in model.parameters():
        parameter.zero_()
    codes = 2.0 * (torch.arange(vocabulary.SYMBOLS)[:, None] >> torch.arange(BITS) & 1) - 1  # [128, 7]
    size = config.hidden_size
    opened, shut, new = slice(0, size), slice(size, 2 * size), slice(2 * size, 3 * size)
    for cell, mode in ((model.encoder, 1.0), (model.decoder, -1.0)):
        cell.bias[0][opened] = cell.bias[0][3 * size :] = FIRM
        cell.bias[0][shut] = -FIRM  # forget everything: the stack is the memory
        cell.bias[0][new][BITS] = mode * FIRM
    model.encoder.symbols[vocabulary.FIRST_SYMBOL :, new][:, :BITS] = FIRM * codes
    model.decoder.recurrent[0][:BITS, new][:, :BITS] = FIRM * torch.eye(BITS)  # what is read
    model.controls.weight[BITS, 0], model.controls.weight[BITS, 1] = 3 * FIRM, -3 * FIRM
    model.controls.weight[:BITS, 2:] = FIRM * torch.eye(BITS)
    model.output.weight[:BITS, :BITS] = FIRM * torch.eye(BITS)
    model.logits.weight[vocabulary.FIRST_SYMBOL :, :BITS] = codes
    model.logits.bias[: vocabulary.FIRST_SYMBOL] = -BITS
    model.logits.bias[vocabulary.END] = BITS - 1.0  # below a symbol that matches, above all that don't
    return model.eval()
