"""LightningDataModules, one a task: clip, i2i, boundary, masked_lm; how epochs are cut into batches."""
