"""Training: the trainer, its optimizers, and runs kept in folders."""
