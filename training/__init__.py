"""What a training is made of: its parts, the Trainer, and the four tasks."""
