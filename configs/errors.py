"""The one exception that is meant for the person at the keyboard."""


class UserError(Exception):
    """Something the user can mend: wrong key, wrong folder, bad data.

    Commands print its message as a single line (no traceback) and exit with status 2. The message says
    what is wrong, where, and what to do.
    """
