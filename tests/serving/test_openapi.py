"""What the service says of itself in /openapi.json is true, whatever is sent: schemathesis makes the requests.

It checks that no answer is a 5xx, that its status, content type and schema are described, that what the description
forbids is refused and what it allows is taken, that the token is needed, and that other methods are answered 405.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.stateful import run_state_machine_as_test
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from serving.schemas import PARTS

# A song is refused for what it says (nothing to encode, no audio), and a condition for what it names, which no schema
# tells; and in a form all is text. A search is for what its fields say together.
JUDGED = {
    "POST /songs": [positive_data_acceptance, negative_data_rejection],
    "GET /songs/{song_id}/audience": [positive_data_acceptance],
    "GET /songs/{song_id}/similar": [positive_data_acceptance],
    "POST /search": [positive_data_acceptance],
}
SEED, STEPS = 7, 8


@pytest.fixture(scope="module")
def described(live: Any) -> Any:
    found = schemathesis.openapi.from_url(f"{live.url}/openapi.json", headers=live.headers)
    found.config.generation.update(allow_extra_parameters=False)  # of a query, where unknown ones are overlooked
    return found


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as found:
        yield found


def bounded(examples: int, **more: Any) -> settings:
    """The same requests each time; one that fails is shown as it is."""
    checks = list(HealthCheck)
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=checks,
        **more,
    )


def check(case: Any, answer: Any, live: Any) -> None:
    """Hold an answer against the description."""
    case.validate_response(answer, headers=live.headers, excluded_checks=JUDGED.get(case.operation.label, []))


def sent(operation: Any, mode: Any, examples: int, ids: dict[str, str], live: Any, session: Any) -> Counter[int]:
    """Requests of one operation, checked; their statuses."""
    seen: Counter[int] = Counter()

    @seed(SEED)
    @bounded(examples)
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        if mode is GenerationMode.POSITIVE and sum(seen.values()) % 3:  # what is made up is nobody's id, and no word
            case.path_parameters.update({name: ids[name] for name in case.path_parameters})
            if operation.label == "POST /songs" and isinstance(case.body, dict):
                case.body["title"] = "A title"
            if operation.label == "POST /search" and isinstance(case.body, dict):
                case.body = {name: case.body[name] for name in ("k", "among") if name in case.body} | {
                    "text": "A title"
                }
        answer = case.call(session=session, headers=live.headers, timeout=60)
        seen[answer.status_code] += 1
        check(case, answer, live)

    send()
    return seen


def test_what_an_id_cannot_end_in_is_every_part_of_a_song(live: Any) -> None:
    with live.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    parts = {path.removeprefix("/songs/{song_id}/") for path in paths if path.startswith("/songs/{song_id}/")}
    assert parts == set(PARTS) and len(PARTS) == 7


@pytest.mark.parametrize("examples", [25, pytest.param(200, marks=pytest.mark.slow)], ids=["few", "many"])
@pytest.mark.parametrize("mode", list(GenerationMode), ids=["as described", "otherwise"])
def test_each_operation(described: Any, live: Any, session: requests.Session, mode: Any, examples: int) -> None:
    with live.client() as client:
        users = client.get("/users").json()["users"]
        songs = [client.post("/songs", data={"title": title}).json() for title in ("To be deleted", "To stay")]
    statuses = {}
    for found in described.get_all_operations():
        operation = found.ok()
        ids = {"user_id": users[0]["user_id"], "song_id": songs[operation.method != "delete"]["song_id"]}
        try:
            statuses[operation.label] = set(sent(operation, mode, examples, ids, live, session))
        except Unsatisfiable:  # nothing can be wrong with a request in which there is nothing
            assert mode is GenerationMode.NEGATIVE and operation.label == "GET /readyz"
    assert len(statuses) > 14
    expected = {200, 201, 204} if mode is GenerationMode.POSITIVE else {401, 422}
    assert all(expected & seen or label.endswith(("picture", "audio")) for label, seen in statuses.items()), statuses


@pytest.mark.parametrize("examples", [6, pytest.param(100, marks=pytest.mark.slow)], ids=["few", "many"])
def test_one_after_another(described: Any, live: Any, session: requests.Session, examples: int) -> None:
    """What one operation answers is asked of the next: songs that are made are looked at and deleted.

    Every example finds the service as the last one did: what is drawn hangs on what was answered, and of the same draws
    the same must become.
    """
    statuses: Counter[tuple[str, int]] = Counter()

    class Workflow(described.as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            with live.client() as client:
                for song in client.get("/songs", params={"limit": 1000}).json()["songs"]:
                    if song["accepted"]:
                        client.delete(f"/songs/{quote(song['song_id'], safe='')}")

        def before_call(self, case: Any) -> None:
            case.headers.pop("idempotency-key", None)  # which the service remembers

        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"headers": live.headers, "session": session, "timeout": 60}

        def validate_response(self, response: Any, case: Any, *_: Any, **__: Any) -> None:
            statuses[case.operation.label, response.status_code] += 1
            check(case, response, live)

    run_state_machine_as_test(seed(SEED)(Workflow), settings=bounded(examples, stateful_step_count=STEPS))
    assert sum(statuses.values()) > examples and len(statuses) > 4, statuses
