"""What is learned: symbols, strings, batches and targets."""
