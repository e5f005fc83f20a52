"""The models that learn to reverse strings."""
