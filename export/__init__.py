"""Trained runs as folders for production: safetensors, ONNX, model cards, the service folder."""
