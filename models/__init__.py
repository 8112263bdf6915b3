"""Plain nn.Modules: audio, text and song encoders, feature views, towers. No Lightning, no configs, no files."""
