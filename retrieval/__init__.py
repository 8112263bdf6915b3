"""Vector index, ranking metrics, audience targeting: arrays in, arrays out."""
