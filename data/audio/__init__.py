"""Recordings: decoding, shards of decoded audio, crops, and what an audio tower takes of them."""
