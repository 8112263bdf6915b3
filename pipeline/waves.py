"""Ranked lists and what users did so far → whom to show which new song next, and which songs to widen or stop.

    python -m pipeline.waves audience=AUDIENCE data=CATALOGUE exposures=1000 out=WAVES/1
    python -m pipeline.waves audience=AUDIENCE data=CATALOGUE exposures=1000 after=WAVES/1 outcomes=PLAYS out=WAVES/2
    python -m pipeline.waves audience=AUDIENCE rates.favourited=0.1 rates.completed=0.55 exposures=1000 out=WAVES/1

Writes wave.parquet (song_id, user_id, rank, wave: show these now), shown.parquet (the same of all earlier waves) and
songs.parquet (state, exposures, and for each outcome the expected rate, the posterior's mean and 90 % interval, the
rate of the next users, and the chance that it is above the catalogue's), and prints a table. Outcomes are plays as in
plays.parquet (serving.feedback writes them): a shown pair without one counts as shown in vain. Nobody is shown a song
twice. The same command gives the same wave; the next one is after=WAVES/1 with another out=. See docs/waves.md.
"""

from __future__ import annotations

from configs.load import command
from configs.waves import WavesConfig


def main(config: WavesConfig) -> None:
    """Run the command (see the module's docstring)."""
    from inference.waves import make_wave  # here: --help and wrong options answer at once

    make_wave(config)


if __name__ == "__main__":
    command(main, WavesConfig, __doc__)
