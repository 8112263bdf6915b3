"""The real service over HTTP: songs in, audiences out; what is refused, and how; and what is left after a restart."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
import soundfile

from data.catalogue import Catalogue
from data.contract.columns import ABOUT
from serving.store import Store, StoredSong

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def client(live: Any) -> Any:
    with live.client() as found:
        yield found


@pytest.fixture(scope="module")
def catalogue(trained: Path) -> Catalogue:
    return Catalogue.read(trained / "catalogue")


@pytest.fixture(scope="module")
def cold(catalogue: Catalogue) -> dict[str, Any]:
    """A new song of the catalogue that has a recording."""
    return catalogue.songs[catalogue.rows("cold")].drop_nulls("audio_path").row(0, named=True)


@pytest.fixture(scope="module")
def recording(trained: Path, cold: dict[str, Any]) -> bytes:
    """That recording."""
    return (trained / "world" / cold["audio_path"]).read_bytes()


def test_users_opt_out_and_in_again(client: httpx.Client, cold: dict[str, Any]) -> None:
    path = f"/songs/{cold['song_id']}/audience?mode=taste&budget=20"
    before = client.get(path).json()
    out = [row["user_id"] for row in before["users"][:3]]
    told = client.post("/opt-outs", json={"user_ids": [*out, "a stranger", out[0]]})
    assert told.json() == {"changed": 4, "unknown_users": 1}
    after = client.get(path).json()
    assert [row["user_id"] for row in after["users"][:17]] == [row["user_id"] for row in before["users"][3:]]
    assert len(after["users"]) == 20 and after["users_total"] == before["users_total"] - 3
    assert client.get("/model").json()["opted_out_users"] == 3
    (found,) = client.get("/users", params={"query": out[0]}).json()["users"]
    theirs = client.get(f"/users/{out[0]}/recommendations?margin=-99").json()
    assert found["opted_out"] and theirs["opted_out"] and theirs["songs"] == []
    assert client.post("/opt-outs", json={"user_ids": out, "opted_out": False}).json()["changed"] == 3
    assert client.get(path).json() == before
    for wrong in ({}, {"user_ids": []}, {"user_ids": [1]}, {"user_ids": out, "opted_out": "yes"}, {"ids": out}):
        assert client.post("/opt-outs", json=wrong).status_code == 422


def test_a_song_comes_in_and_its_listeners_go_out(client: httpx.Client, cold: dict[str, Any], recording: bytes) -> None:
    """A song of the catalogue sent again has the audience that it has there."""
    words = {name: cold[name] for name in ABOUT if cold.get(name)} | {"released_at": f"{cold['released_at']:%Y-%m-%d}"}
    asked = {"mode": "boundary", "budget": 7, "margin": 0.1}
    sent = {"audio": ("song.wav", recording)}
    answer = client.post("/songs", data=words, files=sent, params=asked)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert answer.headers["location"] == f"/songs/{made['song_id']}" and made["accepted"] and made["has_audio"]
    there = client.get(f"/songs/{cold['song_id']}/audience", params=asked).json()
    assert [user["user_id"] for user in made["audience"]["users"]] == [user["user_id"] for user in there["users"]]
    assert made["audience"]["above_boundary"] == there["above_boundary"] >= len(there["users"]) > 0
    similar = client.get(f"/songs/{cold['song_id']}/similar").json()["similar"]
    assert [one["song_id"] for one in made["similar"]] == [one["song_id"] for one in similar]
    assert {one["label"] for one in made["guessed"]} <= set(client.get("/model").json()["labels"])
    again = client.get(f"/songs/{made['song_id']}").json()
    assert all(again[name] == made[name] for name in ("title", "genres", "seconds", "guessed"))


def test_similar_songs_of_a_condition(client: httpx.Client, catalogue: Catalogue, cold: dict[str, Any]) -> None:
    path = f"/songs/{cold['song_id']}/similar"
    language = catalogue.songs[catalogue.rows("warm")]["language"].drop_nulls().mode().sort()[0]
    every = client.get(path, params={"k": 1000}).json()["similar"]
    of_language = set(catalogue.songs.filter(language=language)["song_id"])
    expected = [one for one in every if one["song_id"] in of_language]
    assert 0 < len(expected) < len(every)
    found = client.get(path, params={"k": 1000, "where": f'language == "{language}"'}).json()["similar"]
    assert [one["song_id"] for one in found] == [one["song_id"] for one in expected]
    assert found[0]["score"] == pytest.approx(expected[0]["score"], rel=1e-4)
    assert client.get(path, params={"where": "language == 'no such'"}).json()["similar"] == []
    longest = " or ".join(["language is null"] * 99)  # as deep as a condition can be
    for where in (longest, " or ".join(["''<language"] * 133), "not " * 40 + "language is null"):
        assert client.get(path, params={"where": where}).status_code == 200


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"where": "mood == 'calm'"}, "where: mood is not a column; columns: song_id (text)"),
        ({"where": ""}, "where: not a condition: write comparisons by =="),
        ({"where": "language == 'zh'\n\0"}, "where: not a condition"),
        ({"where": "-" * 1999 + "1"}, "; columns: "),
        ({"where": "(" * 1999}, "; columns: "),
        ({"where": "not " * 499 + "1"}, "; columns: "),
        ({"where": "__import__('os').abort()"}, "where: __import__('os').abort() is not a comparison: "),
        ({"where": "language == 'zh'", "among": "new"}, "where= chooses among known songs: ask without among=new"),
    ],
)
def test_what_is_no_condition_is_refused_in_a_line(
    client: httpx.Client, cold: dict[str, Any], asked: dict[str, Any], told: str
) -> None:
    answer = client.get(f"/songs/{cold['song_id']}/similar", params=asked)
    assert answer.status_code == 422, answer.text
    detail = answer.json()["detail"]
    assert told in detail and "\n" not in detail and len(detail) < 1000


def test_pictures_and_recordings(client: httpx.Client, cold: dict[str, Any], recording: bytes) -> None:
    accepted = client.post("/songs", files={"audio": ("song.wav", recording)}).json()["song_id"]
    played, rate = soundfile.read(io.BytesIO(client.get(f"/songs/{accepted}/audio").content))
    original, _ = soundfile.read(io.BytesIO(recording))
    np.testing.assert_allclose(played, original, atol=1 / 32000)
    for song_id in (accepted, cold["song_id"]):
        picture = client.get(f"/songs/{song_id}/picture").json()
        assert picture["seconds"] == pytest.approx(len(original) / rate) and len(picture["waveform"]) == 400
        assert max(picture["waveform"]) == pytest.approx(np.abs(original).max(), abs=1e-3)
        shape = picture["spectrogram"]["frames"], picture["spectrogram"]["bands"]
        assert len(base64.b64decode(picture["spectrogram"]["data"])) == shape[0] * shape[1] > 1000
    assert client.get(f"/songs/{cold['song_id']}/audio").content == recording
    words = client.post("/songs", data={"title": "words alone"}).json()
    assert not words["has_audio"] and client.get(f"/songs/{words['song_id']}/audio").status_code == 404
    assert client.get(f"/songs/{words['song_id']}/picture").status_code == 404


def test_the_same_key_is_the_same_song(client: httpx.Client) -> None:
    def post(title: str, key: str) -> httpx.Response:
        return client.post("/songs", data={"title": title}, headers={"idempotency-key": key})

    before = client.get("/model").json()["accepted_songs"]
    first, again, other = post("Once", "k1"), post("Once", "k1"), post("Twice", "k1")
    assert first.status_code == again.status_code == 201 and other.status_code == 409
    assert first.json()["song_id"] == again.json()["song_id"]
    assert client.get("/model").json()["accepted_songs"] == before + 1


@pytest.mark.parametrize("what", ["song", "batch", "plays"])
def test_what_is_sent_again_before_it_is_answered_is_answered_alike(client: httpx.Client, what: str) -> None:
    songs = [{"title": f"Sent six times {row}", "song_id": f"six-{row}"} for row in range(3)]
    bodies: dict[str, Any] = {
        "song": ("/songs", {"data": {"title": "Impatience", "song_id": "impatient"}}),
        "batch": ("/songs/batch", {"json": {"songs": songs}}),
        "plays": ("/plays", {"json": {"plays": [{"user_id": "u00001", "song_id": "s00001"}]}}),
    }
    path, body = bodies[what]
    before = client.get("/model").json()
    with ThreadPoolExecutor(6) as pool:
        sent = [pool.submit(client.post, path, headers={"Idempotency-Key": f"again, {what}"}, **body) for _ in range(6)]
        answers = [one.result() for one in sent]
    assert {one.status_code for one in answers} <= {200, 201}, [one.text for one in answers]
    told = [[one["status"] for one in answer.json()["results"]] if what == "batch" else answer.json().get("song_id")
            for answer in answers]  # fmt: skip
    assert all(one == told[0] for one in told) and told[0] == {"song": "impatient", "batch": [201] * 3}.get(what)
    after = client.get("/model").json()
    counts = [after[name] - before[name] for name in ("accepted_songs", "plays_received")]
    assert counts == {"song": [1, 0], "batch": [3, 0], "plays": [0, 1]}[what]


def test_plays_sent_again_are_told_what_was_kept(client: httpx.Client) -> None:
    """A play that was rejected stays so under its key, also if its song has come since; and the other way round."""
    assert client.post("/songs", data={"title": "Here", "song_id": "first here"}).status_code == 201
    plays = [{"user_id": "u00001", "song_id": one} for one in ("first here", "later here")]
    first = client.post("/plays", json={"plays": plays}, headers={"Idempotency-Key": "half"})
    assert first.json()["accepted"] == 1 and [one["row"] for one in first.json()["rejected"]] == [1]
    assert client.post("/songs", data={"title": "Here too", "song_id": "later here"}).status_code == 201
    assert client.delete("/songs/first here").status_code == 204
    again = client.post("/plays", json={"plays": plays}, headers={"Idempotency-Key": "half"})
    assert again.content == first.content and client.get("/songs/later here").json()["plays"] == 0


def test_a_batch_is_judged_song_by_song(client: httpx.Client, cold: dict[str, Any], recording: bytes) -> None:
    audio = base64.b64encode(recording).decode()
    songs = [
        {"title": "one", "song_id": "batch-1"}, {"audio": audio}, {"audio": "no base64!"}, {"genres": ["nobody's"]},
        {"title": "again", "song_id": "batch-1"}, {"title": "known", "song_id": cold["song_id"]},
        {"audio": base64.b64encode(b"no audio").decode()},
    ]  # fmt: skip
    key = {"idempotency-key": "batch"}
    answer = client.post("/songs/batch", json={"songs": songs}, headers=key)
    results = answer.json()["results"]
    assert [one["status"] for one in results] == [201, 201, 422, 422, 409, 409, 422], results
    assert all((one["song_id"] is None) == (one["status"] != 201) for one in results)
    again = client.post("/songs/batch", json={"songs": songs}, headers=key).json()["results"]
    assert [one["song_id"] for one in again] == [one["song_id"] for one in results]
    assert [one["status"] for one in again] == [201, 201, *[409] * 5] and "another" in again[2]["detail"]
    assert client.get(f"/songs/{results[1]['song_id']}").json()["has_audio"]


def test_blank_words_are_none(client: httpx.Client) -> None:
    """As in the tables; a form sends its empty fields."""
    words = {"title": "Blank", "artist_id": " ", "language": " ", "genres": ["", "jazz ", " "], "tags": ["\u3000"]}
    made = [client.post("/songs", data=words).json()]
    answer = client.post("/songs/batch", json={"songs": [words]}).json()
    made.append(client.get(f"/songs/{answer['results'][0]['song_id']}").json())
    for song in made:
        assert (song["artist_id"], song["genres"], song["tags"]) == (None, ["jazz"], [])
        assert client.delete(f"/songs/{song['song_id']}").status_code == 204


def test_songs_are_found_and_deleted(client: httpx.Client) -> None:
    made = client.post("/songs", data={"title": "Needle in a Haystack", "genres": ["jazz", "rock"]}).json()["song_id"]
    found = client.get("/songs", params={"query": "HAYSTACK"}).json()
    assert (
        found["total"] == 1 and found["songs"][0]["song_id"] == made and found["songs"][0]["genres"] == ["jazz", "rock"]
    )
    everything = client.get("/songs", params={"limit": 1000}).json()
    assert everything["total"] == len(everything["songs"]) == client.get("/model").json()["new_songs"]
    pages = [client.get("/songs", params={"limit": 7, "offset": at}).json()["songs"] for at in range(0, 1000, 7)]
    assert [one for page in pages for one in page] == everything["songs"]
    assert client.delete(f"/songs/{made}").status_code == 204 and client.get(f"/songs/{made}").status_code == 404
    assert client.delete(f"/songs/{made}").status_code == 404
    assert client.get("/songs", params={"query": "haystack"}).json() == {"total": 0, "songs": []}


def test_plays_count_at_once(client: httpx.Client, catalogue: Catalogue) -> None:
    user = catalogue.users["user_id"][4]
    before = client.get(f"/users/{user}/recommendations", params={"margin": -1000}).json()
    song = before["songs"][0]["song_id"]
    met = client.get(f"/songs/{song}").json()["plays"]  # by users of the tests before
    plays = [
        {"user_id": user, "song_id": song, "completed": True, "played_at": "2026-11-26T10:00:00Z"},
        {"user_id": "new one", "song_id": song, "completed": None},
        {"user_id": user, "song_id": "no such song"},
        {"user_id": user, "song_id": song, "favourited": True, "disliked": True},
        {"user_id": user, "song_id": song, "source_song_id": "no such song"},
    ]
    answer = client.post("/plays", json={"plays": plays}).json()
    assert (answer["accepted"], answer["new_users"], answer["unknown_users"]) == (2, 1, 0)
    assert [one["row"] for one in answer["rejected"]] == [2, 3, 4]
    after = client.get(f"/users/{user}/recommendations", params={"margin": -1000}).json()
    assert song not in [one["song_id"] for one in after["songs"]] and after["boundary"] != before["boundary"]
    assert client.get(f"/songs/{song}").json()["plays"] == met + 2
    theirs = client.get("/users/new one/recommendations", params={"margin": -1000}).json()["songs"]
    assert theirs and song not in [one["song_id"] for one in theirs]
    (found,) = client.get("/users?query=new o").json()["users"]
    assert found == {"user_id": "new one", "plays": 1, "opted_out": False}
    about = client.get("/model").json()
    assert (about["users"], about["new_users"] + about["free_rows"]) == (catalogue.n_users, 20)
    reached = client.get(f"/songs/{song}/audience", params={"mode": "taste", "budget": 10_000}).json()["users"]
    assert len(reached) > 50 and user not in [one["user_id"] for one in reached]


@pytest.mark.parametrize(
    ("ask", "status", "told"),
    [
        (lambda c: c.get("/songs/nope"), 404, "no song 'nope'"),
        (lambda c: c.get("/users/nope/recommendations"), 404, "no user 'nope'"),
        (lambda c: c.get("/songs/..%2F..%2Fetc%2Fpasswd/audio"), 404, "no song '../../etc/passwd'"),
        (lambda c: c.post("/songs", data={}), 422, "nothing to encode"),
        (lambda c: c.post("/songs", data={"song_id": "a\x00b", "title": "t"}), 422, "song_id"),
        (lambda c: c.post("/songs", data={"title": "t" * 501}), 422, "title"),
        (lambda c: c.post("/songs", data={"title": "t", "released_at": "May 2026"}), 422, "released_at"),
        (lambda c: c.post("/songs", data={"title": "t", "features": '{"x": [1]}'}), 422, "is not known to the models"),
        (lambda c: c.post("/songs", data={"title": "t", "features": '{"text": [1]}'}), 422, "has 384 numbers, not 1"),
        (lambda c: c.post("/songs", data={"title": "t", "features": "no JSON"}), 422, "JSON"),
        (lambda c: c.post("/songs", files={"audio": ("a.mp3", b"no audio")}), 422, "cannot be used"),
        (lambda c: c.post("/songs", files={"audio": b"x" * (31 << 20)}), 413, "may have 30 MB"),
        (lambda c: c.post("/songs/batch", json={"songs": [{"titel": "misspelt"}]}), 422, "Extra inputs"),
        (lambda c: c.post("/songs/batch", content=b'{"songs": [{"title": "\\ud800"}]}', headers=JSON), 422, "title"),
        (lambda c: c.post("/plays", json={"plays": []}), 422, "at least 1"),
        (lambda c: c.get("/songs/s00001/audience", params={"budget": 0}), 422, "budget"),
        (lambda c: c.get("/songs/s00001/audience", params={"margin": "nan"}), 422, "margin"),
        (lambda c: c.delete("/songs/s00001"), 403, "is of the catalogue"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(
    client: httpx.Client, ask: Callable[..., httpx.Response], status: int, told: str
) -> None:
    answer = ask(client)
    assert answer.status_code == status and told in answer.text, answer.text


def test_nobody_without_the_token(live: Any) -> None:
    for given in ("", "Bearer wrong", "Basic YTpi", "Bearer x y"):
        for path in ("/model", "/songs", "/metrics", "/openapi.json", "/songs/s00001/audio"):
            answer = httpx.get(live.url + path, headers={"authorization": given})
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    for path in ("/", "/healthz", "/readyz"):
        assert httpx.get(live.url + path).status_code == 200, "the page itself asks for the token"
    headers = httpx.get(live.url + "/").headers
    assert "default-src 'self'" in headers["content-security-policy"] and headers["x-content-type-options"] == "nosniff"


def test_figures_for_prometheus(client: httpx.Client) -> None:
    client.get("/songs/nope")
    text = client.get("/metrics").text
    assert 'firstplay_requests_total{method="GET",route="/songs/{song_id}",status="404"}' in text
    assert "firstplay_accepted_songs " in text and "firstplay_request_seconds_bucket" in text


def test_what_was_accepted_is_there_after_a_restart(service_folder: Path, tmp_path: Path, serve: Any) -> None:
    with serve(service_folder, tmp_path / "store") as running, running.client() as client:
        made = client.post("/songs", data={"title": "Here to stay"}, params={"budget": 5}).json()
        gone = client.post("/songs", data={"title": "Gone"}).json()["song_id"]
        assert client.delete(f"/songs/{gone}").status_code == 204
        user = made["audience"]["users"][0]["user_id"]
        plays = [{"user_id": user, "song_id": made["song_id"], "favourited": True}]
        assert client.post("/plays", json={"plays": plays}).json()["accepted"] == 1
        paths = f"/songs/{made['song_id']}/audience", f"/users/{user}/recommendations"
        before = [client.get(path).json() for path in paths]
    with serve(service_folder, tmp_path / "store") as running, running.client() as client:
        after = [client.get(path).json() for path in paths]
        assert client.get(f"/songs/{gone}").status_code == 404
    for one, other in zip(before, after, strict=True):
        assert pytest.approx(numbers(one), rel=1e-4) == numbers(other)


def test_a_song_of_the_new_catalogue_is_heard_as_it_came_in(service_folder: Path, tmp_path: Path, serve: Any) -> None:
    """Its file may be on the machine of the training alone."""
    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(32_000) * 0.3) * 0.3, 16_000, format="FLAC")
    (tmp_path / "nothing").mkdir()
    with closing(Store(tmp_path / "store")) as store:
        store.add_songs([(StoredSong("s00002", {}, 2.0, "2026-11-26T00:00:00+00:00", {}, ""), file.getvalue())])
    with serve(service_folder, tmp_path / "store", f"audio={tmp_path}/nothing") as running, running.client() as client:
        assert not client.get("/songs/s00002").json()["accepted"]
        assert client.get("/songs/s00002/audio").content == file.getvalue()
        assert client.get("/songs/s00002/picture").json()["seconds"] == 2.0
        assert client.get("/songs/s00003/audio").status_code == client.get("/songs/s00003/picture").status_code == 404


def numbers(found: Any) -> dict[str, float]:
    """Every user and song of an answer with its score."""
    rows = found.get("users", found.get("songs"))
    return {one.get("user_id", one.get("song_id")): one["score"] for one in rows}


def test_without_a_boundary_and_without_clip(i2i_run: Path, tmp_path: Path, serve: Any) -> None:
    """A model of tags and given vectors alone: there are no boundaries, and no tags to guess."""
    from configs.load import load
    from configs.serving import ServiceConfig
    from configs.targeting import IndexConfig
    from pipeline import index, service

    index.main(load(IndexConfig, [f"run={i2i_run}", f"out={tmp_path}/index"]))
    service.main(load(ServiceConfig, [f"index={tmp_path}/index", f"out={tmp_path}/service"]))
    song = pl.read_parquet(tmp_path / "service" / "catalogue" / "songs.parquet").row(50, named=True)
    with serve(tmp_path / "service", tmp_path / "store") as running, running.client() as client:
        about = client.get("/model").json()
        assert about["boundary"] is None and about["clip"] is None and "boundary" not in about["modes"]
        for path in ("/songs/s50/margins", "/songs/s50/audience?gate=true", "/users/u00/recommendations"):
            answer = client.get(path)
            assert answer.status_code == 409 and "no boundary" in answer.text
        features = tmp_path / "service" / "features"
        given = {name: np.load(features / f"{name}.npy")[50].tolist() for name in ("content", "mood")}
        words = {name: song[name] for name in ("language", "genres", "tags")}
        made = client.post("/songs/batch", json={"songs": [{"features": given, **words}]}).json()["results"][0]
        assert made["status"] == 201
        ours, theirs = (client.get(f"/songs/{one}/audience").json()["users"] for one in (made["song_id"], "s50"))
        assert [one["user_id"] for one in ours] == [one["user_id"] for one in theirs] and ours
        deaf = client.post("/songs", data={"title": "words nobody reads"})
        assert deaf.status_code == 422 and "audio" not in deaf.text, "it does not ask for what it cannot hear"


def test_the_gate_stands_where_the_service_was_made_with(
    service_folder: Path, serve: Callable[..., Any], catalogue: Catalogue, cold: dict[str, Any], tmp_path: Path
) -> None:
    folder = shutil.copytree(service_folder, tmp_path / "service")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["targeting"]["margin"] = 0.15
    (folder / "manifest.json").write_text(json.dumps(manifest))
    paths = {
        "audience": f"/songs/{cold['song_id']}/audience",
        "user": f"/users/{catalogue.users['user_id'][4]}/recommendations",
    }
    with serve(folder, tmp_path / "store") as running, running.client() as client:
        assert client.get("/model").json()["margin"] == 0.15

        def told(what: str, **asked: float) -> Any:
            mode = {"mode": "boundary", "budget": 100} if what == "audience" else {"k": 100}
            return client.get(paths[what], params=mode | asked).json()

        for what in paths:
            assert told(what) == told(what, margin=0.15) != told(what, margin=0)
        assert told("audience")["margin"] == 0.15 and told("audience", margin=0)["margin"] == 0
