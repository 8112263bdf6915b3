"""A new song as a form, which may carry its recording."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import File, Form, UploadFile
from pydantic import ValidationError

from serving import schemas
from serving.refusals import Refused, in_words


@dataclass
class SongForm:
    """The form of a song."""

    audio: Annotated[UploadFile | None, File(description="a recording")] = None
    title: Annotated[str, Form()] = ""
    lyrics: Annotated[str, Form()] = ""
    language: Annotated[str, Form()] = ""
    artist_id: Annotated[str, Form()] = ""
    genres: Annotated[list[str] | None, Form()] = None
    tags: Annotated[list[str] | None, Form()] = None
    song_id: Annotated[str, Form()] = ""
    released_at: Annotated[str, Form(description="YYYY-MM-DD; none: today")] = ""
    features: Annotated[str, Form(description="JSON: name → numbers")] = "{}"

    def song(self) -> schemas.NewSong:
        """The song, whose empty fields are none; 422 if it cannot be one."""
        given: dict[str, Any] = {name: value for name, value in vars(self).items() if value and name != "audio"}
        try:
            return schemas.NewSong(**given | {"features": schemas.FEATURES.validate_json(self.features)})
        except ValidationError as error:
            first = error.errors()[0]  # without what was given: that may be long, or secret
            raise Refused(422, f"{'.'.join(str(part) for part in first['loc'])}: {in_words(first)}") from None
