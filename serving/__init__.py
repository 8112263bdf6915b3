"""The service: a trained model behind HTTP, and a store of what it accepted."""
