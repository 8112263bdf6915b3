"""The one exception that is meant for the person at the keyboard, and how its message names things."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """Something the user can mend: wrong key, wrong folder, bad data.

    Commands print its message as a single line (no traceback) and exit with status 2. The message says
    what is wrong, where, and what to do.
    """


def first_of(names: Sequence[object], most: int) -> str:
    """The first of some names, as a sentence lists them; "…" stands for the rest."""
    return ", ".join(map(str, names[:most])) + (", …" if len(names) > most else "")


def no_folder(folder: object, kind: str, made_by: str) -> UserError:
    """The error of a missing input folder."""
    return UserError(f"folder not found: {folder} (expected a {kind} folder, made by: {made_by})")
