"""Lightning callbacks: correlation matrix, FAISS recall, checkpoints, pictures."""
