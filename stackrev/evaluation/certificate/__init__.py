"""A proof, checked by computer, that a stack-LSTM reverses every string of every length; see docs/proof.md."""
