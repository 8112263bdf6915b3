"""What a request can be refused for."""

from __future__ import annotations

from typing import Any

from data.conditions import ConditionError


class Refused(Exception):  # noqa: N818
    """A request that is answered with a status and a sentence, which names no folder of the machine."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


def no_condition(error: ConditionError) -> Refused:
    """The refusal of a text that is no condition, by the name of its field."""
    return Refused(422, f"{error.option}: {error.why}")


def in_words(complaint: Any) -> str:
    """One of pydantic's complaints, without what it puts before the words of a validator."""
    return str(complaint["msg"]).removeprefix("Value error, ")
