"""Plain nn.Modules: audio, text and song encoders, views, towers. No Lightning, configs or files, but for weights."""
