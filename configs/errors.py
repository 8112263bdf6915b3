"""The one exception that is meant for the person at the keyboard."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend: wrong key, wrong folder, bad data.

    Commands print its message as a single line (no traceback) and exit with status 2. The message says
    what is wrong, where, and what to do.
    """


def no_folder(folder: object, kind: str, made_by: str) -> UserError:
    """The error of a missing input folder."""
    return UserError(f"folder not found: {folder} (expected a {kind} folder, made by: {made_by})")
