"""From what a music service holds to a catalogue: the data contract, song pairs, fields, text, audio."""
