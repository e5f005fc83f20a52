"""Files: checkpoints and the Hugging Face Hub."""
