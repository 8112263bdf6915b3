"""What commands write: folders that appear whole, run folders, and lineage in Weights & Biases."""
