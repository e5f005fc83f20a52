"""What a model does with strings: scores, decoding, margins and traces."""
