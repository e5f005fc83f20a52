"""For an emulated Python on Arm: what the NEON library makes of numbers and strings, without torch.

Reads a pickled dictionary from stdin, and writes one to stdout; `test_emulated_arm.py` compares.
"""

import ctypes
import pickle
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from stackrev.kernels.cpu import calls, library

neon = ctypes.CDLL(sys.argv[1])
assert not calls.disagreement(neon)
library.NATIVE = library.Native(neon, "baseline", "")

from stackrev.kernels.cpu.activations import activation  # noqa: E402
from stackrev.kernels.cpu.stream import Stream  # noqa: E402

given = pickle.load(sys.stdin.buffer)
found = {"machine": platform.machine(), "version": neon.stackrev_version() == library.VERSION}
for name in ("sigmoid", "tanh"):
    found[name] = activation(name, given["numbers"]).tobytes()
stream = Stream(given["weights"], **given["shape"])
found["hidden"], found["read"] = [], []
for call, symbols in ((stream.encode, given["source"]), (stream.feed_decoder, given["fed"])):
    for symbol in symbols:
        call([symbol])
        look = stream.look()
        found["hidden"].append(look.hidden.tolist())
        found["read"].append(look.read.tolist())
found["answers"] = stream.answer(given["strings"], **given["how"])
sys.stdout.buffer.write(pickle.dumps(found))
