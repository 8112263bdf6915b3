"""What happens around training: correlation matrix, FAISS recall, checkpoints, pictures."""
