"""What a request can be refused for: a status and a sentence, which names no folder of the machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import TimeoutError as TooLate
from contextlib import contextmanager

from serving.encoder import Unfit
from serving.store import Exists, KeyReused, StoreError

LATE = "it took too long: try again"
log = logging.getLogger("firstplay.serving")


class Refused(Exception):  # noqa: N818
    """A request that is answered with a status and a sentence."""

    def __init__(self, status: int, detail: str) -> None:
        """Name both."""
        super().__init__(detail)
        self.status, self.detail = status, detail


@contextmanager
def refusing() -> Iterator[None]:
    """What the store and the encoder raise, as refusals."""
    try:
        yield
    except Exists as error:
        raise Refused(409, f"there is a song {error.song_ids[0]!r} already") from None
    except KeyReused as error:
        raise Refused(409, str(error)) from None
    except StoreError as error:  # which names the folder
        log.error("%s", error)
        raise Refused(503, "nothing was kept: the store is full, or cannot be written or read just now") from None
    except Unfit as error:
        raise Refused(
            503, f"another model came into use, which has no such feature {str(error)!r}: try again"
        ) from None
    except TooLate:
        raise Refused(503, LATE) from None
