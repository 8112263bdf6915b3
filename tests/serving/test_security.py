"""The real service under attack, with and without the token: it refuses in words, and goes on.

No answer here may be a 5xx that the service does not mean, no request may cost it more than a bounded time and memory,
and no text that comes out may tell of the machine's folders.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import resource
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import polars as pl
import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from benchmarks.measure import memory
from benchmarks.speed.serve_process import children
from configs.load import load
from configs.serving import ServingConfig
from serving import schemas
from serving.app import make_app
from serving.engine import Engine
from serving.server import MINIMUM_SECONDS
from tests.serving.conftest import TOKEN
from tests.serving.test_decoding import BAD, encoded, noise, whole

JSON = {"content-type": "application/json"}
PARTS = {"content-type": "multipart/form-data; boundary=b"}
OWN_PAGE = "https://page.example"
PLAYED = {"user_id": "u00004", "song_id": "s00001"}
STALL = 4  # seconds of the timeout of `strict`
MB = 1 << 20


@pytest.fixture(scope="module")
def client(live: Any) -> Iterator[httpx.Client]:
    with live.client() as found:
        yield found


@pytest.fixture(scope="module")
def strict(service_folder: Path, tmp_path_factory: pytest.TempPathFactory, serve: Any) -> Iterator[Any]:
    """A service for this machine alone, with a page of another origin, little patience and little room, on a model and
    recordings of its own: `folder`."""
    folder = tmp_path_factory.mktemp("strict")
    shutil.copytree(service_folder, folder / "model")
    (folder / "audio").mkdir()
    options = [f"audio={folder}/audio", f"timeout={STALL}", "max_requests=12", "max_upload_mb=1", "watch_seconds=0.1"]
    with serve(folder / "model", folder / "store", *options, f"origins=[{OWN_PAGE}]") as running:
        running.folder = folder
        with running.client() as patient:  # the first song with words waits for the text encoder
            assert patient.post("/songs", data={"title": "The first"}).status_code == 201
        yield running


def raw(service: Any, sent: bytes, seconds: float = 10.0) -> bytes:
    """What comes back until the service closes the connection, or the time is up."""
    with connected(service, seconds) as connection:
        connection.sendall(sent)
        return rest(connection)


def connected(service: Any, seconds: float = 10.0) -> socket.socket:
    at = urlsplit(service.url)
    return socket.create_connection((at.hostname, at.port), timeout=seconds)


def rest(connection: socket.socket) -> bytes:
    found = b""
    try:
        while part := connection.recv(1 << 16):
            found += part
    except (TimeoutError, ConnectionResetError):
        pass
    return found


def request(line: str, *headers: str, token: str | None = TOKEN) -> bytes:
    """The head of a request, after whose answer the connection is closed."""
    lines = [f"{line} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
    lines += [f"Authorization: Bearer {token}"] if token else []
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def status(answer: bytes) -> int:
    return int(answer.split()[1])


def part(name: str, content: bytes, *more: str) -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"' + "".join(more)
    return head.encode() + b"\r\n\r\n" + content + b"\r\n"


def pieces(head: bytes, size: int) -> Iterator[bytes]:
    """A body that does not say how long it will be."""
    yield head
    for _ in range(size // MB):
        yield bytes(MB)


# ------------------------------------------------------------------------------------------------------------- bodies

SONG = b'{"songs": [%s]}'
PLAY = b'{"plays": [{"user_id": "u00004", "song_id": "s00001", "played_at": %s}]}'
MANY = b",".join(b'"%x": 1' % n for n in range(200_000))  # 2 MB of names


@pytest.mark.parametrize(
    ("path", "headers", "body", "expected"),
    [
        ("/songs/batch", JSON, b"[" * (5 * MB), 400),
        ("/songs/batch", JSON, SONG % (b"[" * 10**5 + b"]" * 10**5), 400),
        ("/songs/batch", JSON, b"", 422),
        ("/songs/batch", JSON, b"null", 422),
        ("/songs/batch", {}, SONG % b'{"title": "no type"}', 422),
        ("/songs/batch", {"content-type": "text/plain"}, SONG % b'{"title": "a simple request"}', 422),
        ("/songs/batch", JSON, SONG % b'{"\\ud800": 1}', 422),
        ("/songs/batch", JSON, SONG % b'{"features": {"\\ud800": [1]}}', 422),
        ("/songs/batch", JSON, SONG % b'{"features": {"text": ["\\ud800"]}}', 422),
        ("/songs/batch", JSON, SONG % (b"{%s}" % MANY), 422),
        ("/songs/batch", JSON, SONG % (b'{"features": {%s}}' % MANY), 422),
        ("/songs/batch", JSON, SONG % b",".join([b"{}"] * 10**6), 422),
        ("/plays", JSON, b"{%s}" % MANY, 422),
        ("/plays", JSON, b'{"plays": [%s]}' % b",".join([b"{}"] * 10_000), 422),
        ("/plays", JSON, PLAY % (b"9" * 5000), 400),
        ("/plays", JSON, PLAY % (b"9" * 4000), 422),
        ("/plays", JSON, PLAY % b"NaN", 422),
        ("/plays", JSON, PLAY % b"-Infinity", 422),
        ("/plays", JSON, b'"\xff\xfe"', 400),
        ("/plays", JSON | {"content-encoding": "gzip"}, gzip.compress(bytes(100 * MB)), 400),
        ("/plays", JSON, pieces(b"", 9 * MB), 413),
        ("/plays", {}, pieces(b"", 2 * MB), 413),
        ("/songs", PARTS, pieces(part("audio", b"", '; filename="a"'), 31 * MB), 413),
        ("/songs", PARTS, part("audio", b"x", '; filename="a"') * 2000 + b"--b--\r\n", 400),
        ("/songs", PARTS, part("tags", b"x") * 2000 + b"--b--\r\n", 400),
        ("/songs", PARTS, part("x" * 10**6, b"x") + b"--b--\r\n", 400),
        ("/songs", PARTS, part("title", b"x", *["\r\nX-Y: z"] * 100) + b"--b--\r\n", 400),
        ("/songs", PARTS, part("title", b"x" * (2 * MB)) + b"--b--\r\n", 400),
        ("/songs", PARTS, part("title", b"never ended"), 422),
        ("/songs", PARTS, b"\r\n-" * (2 * MB), 400),
        ("/songs", {"content-type": "multipart/form-data"}, b"no boundary", 400),
        ("/songs", {"content-type": "multipart/form-data; boundary=b; charset=utf-7"}, part("title", b"+2AA-"), 422),
        ("/songs", {"content-type": "multipart/form-data; boundary=b; charset=undefined"}, part("title", b"x"), 400),
        ("/songs", {"content-type": "application/x-www-form-urlencoded"}, b"&" * (2 * MB), 413),
        ("/songs", {"content-type": "application/x-www-form-urlencoded"}, b"title=a&" * 2000, 400),
    ],
)
def test_a_body_that_is_made_to_hurt(
    client: httpx.Client, path: str, headers: dict[str, str], body: Any, expected: int
) -> None:
    start = time.monotonic()
    answer = client.post(path, content=body, headers=headers)
    assert answer.status_code == expected, answer.text
    assert len(answer.content) < 5000 and "Traceback" not in answer.text
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "given",
    [
        {"songs": [{str(n): 1 for n in range(9999)}] * 100},
        {"songs": [{"features": {str(n): ["x"] * 999 for n in range(9999)}}] * 100},
        {"songs": [{"tags": [1] * 9999, "genres": [1] * 9999}] * 100},
        {"songs": [7] * 100},
        {str(n): 1 for n in range(9999)},
    ],
)
def test_complaints_are_few_however_much_is_wrong(given: Any) -> None:
    """Each costs a hundred times the bytes that it is about: 30 MB of wrong names took five gigabytes and a minute."""
    with pytest.raises(ValidationError) as found:
        schemas.NewSongs.model_validate(given)
    assert found.value.error_count() <= schemas.MOST_NAMES


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (request("POST /plays", "Content-Length: " + "9" * 5000), 400),
        (request("POST /plays", "Content-Length: " + "9" * 20), 413),
        (request("POST /plays", "Content-Length: -1"), 400),
        (request("POST /plays", "Content-Length: 1", "Content-Length: 2"), 400),
        (request("POST /plays", "Transfer-Encoding: chunked", "Content-Type: application/json") + b"zz\r\n", 400),
        (request("GET /model", "X: " + "x" * 10**6), 400),
        (request("GET /model", "Host: evil.example"), 400),
        (request("POST /songs", f"Content-Length: {2 * MB}", "Content-Type: application/x-www-form-urlencoded",
                 "Content-Type: multipart/form-data"), 413),
        (request("GET /songs/\xff"), 400),
        (request("GET http://evil.example/model"), 404),
        (request("CONNECT evil.example:443"), 404),
        (request("OPTIONS *"), 404),
        (request("GET /model", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AA=="), 200),
        (request("GET /model", "Upgrade: websocket", token=None), 401),
        (request("GET /model", "Origin: http://["), 403),
        (request("GET /model", "Origin: http://\xff"), 403),
        (request("GET /model", "Authorization: Bearer \xff", token=None), 401),
        (request("GET /model", "Authorization: Bearer", token=None), 401),
        (request("GET /model", "Cookie: token=" + TOKEN, token=None), 401),
        (request("GET /model?token=" + TOKEN, token=None), 401),
        (request("GET /model", "X-Forwarded-For: 127.0.0.1", "X-Original-URL: /healthz", token=None), 401),
        (request("GET /healthz/../model", token=None), 401),
        (request("GET /console/../model", token=None), 404),
        (request("GET //healthz", token=None), 401),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), 400),  # TLS
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 401),
        (b"\0\xff\r\n\r\n", 400),
    ],
)  # fmt: skip
def test_a_request_that_is_made_to_hurt(live: Any, sent: bytes, expected: int) -> None:
    answer = raw(live, sent)
    assert status(answer) == expected, answer[:500]
    assert b"Traceback" not in answer and TOKEN.encode() not in answer


# ------------------------------------------------------------------------------------------------- ids, paths, numbers

IDS = ["日本", "😀", "é", "e\u0301", "\u202eevil", "\u2028", "\ufffd", "a b", "a+b", "a/b", "//", "/..", "../../passwd",
       "...", "..a", ".a", "a\\b", "a?b#c", "%", "%2F", "%00", "'; DROP TABLE songs; --", '"; --', "{song_id}", "batch",
       "audio", "<script>", "a" * 200, "\U0010ffff" * 200]  # fmt: skip


def test_a_song_may_be_called_anything(client: httpx.Client) -> None:
    for song_id in IDS:
        answer = client.post("/songs", data={"title": f"It is {song_id}", "song_id": song_id})
        assert answer.status_code == 201 and answer.json()["song_id"] == song_id, answer.text
        assert answer.headers["location"].isascii()
        assert client.get(answer.headers["location"]).json()["title"] == f"It is {song_id}"
        assert client.get(answer.headers["location"] + "/similar").json()["song_id"] == song_id
        assert client.post("/songs", data={"title": "Again", "song_id": song_id}).status_code == 409
    listed = [one["song_id"] for one in client.get("/songs", params={"limit": len(IDS)}).json()["songs"]]
    assert listed == IDS[::-1], "é in its two spellings too: ids are compared as they are"
    for song_id in IDS:
        assert song_id in [one["song_id"] for one in client.get("/songs", params={"query": song_id}).json()["songs"]]
        assert client.delete(f"/songs/{quote(song_id, safe='')}").status_code == 204
    for song_id in (".", "..", "\0", "a\nb", "\r\nSet-Cookie: a=b", "\x7f", "a" * 201, "a/similar", "/audio"):
        answer = client.post("/songs", data={"title": "t", "song_id": song_id})
        assert answer.status_code == 422 and "set-cookie" not in answer.headers


def test_a_key_may_be_anything(client: httpx.Client) -> None:
    made = set()
    for key in (b"\xff\x80", b"'; DROP TABLE keys; --", b"%00", b"k" * 200):
        answers = [client.post("/songs", data={"title": "t"}, headers={"idempotency-key": key}) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 201]
        assert len({answer.json()["song_id"] for answer in answers}) == 1
        made.add(answers[0].json()["song_id"])
    assert len(made) == 4
    for key in (b"", b"k" * 201):
        assert client.post("/songs", data={"title": "t"}, headers={"idempotency-key": key}).status_code == 422


@pytest.mark.parametrize(
    "path",
    [
        f"{start}{step * 4}{end}"
        for start in ("/console/", "/songs/", "/users/", "/")
        for step in ("../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..\\", "..%5c", "%252e%252e%252f", "....//")
        for end in ("etc/passwd", "serving/app.py", "etc/passwd%00.png", "songs.sqlite/audio")
    ]
    + ["/console//etc/passwd", "/console/%00", "/console/" + "a" * 5000, "/console/" + "a/" * 5000, "/console/."],
)
def test_no_path_leads_out(live: Any, path: str) -> None:
    for token in (TOKEN, None):
        answer = raw(live, request(f"GET {path}", token=token))
        assert status(answer) in ({404, 422} if token else {404, 401}), answer[:300]
        assert b"root:" not in answer and b"FastAPI(" not in answer and b"SQLite" not in answer


def recordings(service: Any, count: int) -> dict[str, Path]:
    """Where the recordings of the last songs of its catalogue would be, by id."""
    songs = pl.read_parquet(service.folder / "model" / "catalogue" / "songs.parquet")
    named = songs.filter(pl.col("audio_path").is_not_null()).select("song_id", "audio_path").tail(count).iter_rows()
    found = {song_id: service.folder / "audio" / name for song_id, name in named}
    for path in found.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
    return found


def test_a_recording_lies_in_its_folder(strict: Any) -> None:
    """Not behind a link that leads out of it, nor is it a folder, a pipe that nobody writes, or a link to itself."""
    found = recordings(strict, 6)
    ids, paths = list(found), list(found.values())
    (strict.folder / "secret.wav").write_bytes(whole("wav"))
    paths[0].write_bytes(whole("wav"))
    paths[1].symlink_to(strict.folder / "secret.wav")
    paths[2].symlink_to("/dev/zero")
    paths[3].mkdir()
    os.mkfifo(paths[4])
    paths[5].symlink_to(paths[5].name)
    with strict.client() as client:
        for what in ("audio", "picture"):
            answers = [client.get(f"/songs/{song_id}/{what}").status_code for song_id in ids]
            assert answers == [200] + [404] * 5, what
        assert client.get(f"/songs/{ids[0]}/audio").content == whole("wav")
        assert client.get("/songs", params={"limit": 1000}).status_code == 200, "though some cannot be looked at"
    paths[3].rmdir()


@pytest.mark.parametrize(
    "at",
    ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00", "9999-12-31T23:59:59Z",
     "1969-12-31T23:59:59.999Z", "2262-04-12T00:00:00Z", -1, -1e10],
)  # fmt: skip
def test_a_play_is_of_our_time(client: httpx.Client, at: Any) -> None:
    play = {"user_id": "u00004", "song_id": "s00001", "played_at": at}
    answer = client.post("/plays", json={"plays": [play, play | {"played_at": "2026-01-01T12:00:00+14:00"}]})
    assert answer.status_code == 200 and answer.json()["accepted"] == 1
    assert answer.json()["rejected"] == [{"row": 0, "detail": "played_at is before 1970 or in the future"}]


def test_no_song_makes_others_unanswerable(client: httpx.Client) -> None:
    """Given features near the largest float made a vector of NaN, and every search that met the song failed."""
    songs = [{"title": "t", "features": {"text": [value] * 384}} for value in (3e38, 1.1e15, 1e15, -1e15, 1e-45)]
    body = json.dumps({"songs": [*songs, {"title": "t", "features": {"text": [float("inf")] * 384}}]})
    results = client.post("/songs/batch", content=body, headers=JSON).json()["results"]
    assert [one["status"] for one in results] == [422, 422, 201, 201, 201, 422]
    for one in results[2:5]:
        for mode in ("i2i2u", "taste", "cat", "union", "boundary"):
            found = client.get(f"/songs/{one['song_id']}/audience", params={"mode": mode, "margin": -1e6})
            assert all(abs(user["score"]) < 1e6 for user in found.json()["users"])
        for what in ("similar", "margins", "clusters", ""):
            assert client.get(f"/songs/{one['song_id']}/{what}".rstrip("/")).status_code == 200
        play = {"user_id": "u00007", "song_id": one["song_id"], "favourited": True}
        assert client.post("/plays", json={"plays": [play]}).json()["accepted"] == 1
    found = client.get("/users/u00007/recommendations", params={"margin": -1e6, "k": 1000}).json()["songs"]
    assert len(found) > 20 and all(abs(song["score"]) < 1e6 for song in found)


# ----------------------------------------------------------------------------------------------------- who may ask what


def test_other_names_of_this_machine_are_refused_without_a_token(strict: Any) -> None:
    """What DNS rebinding needs: a page's own name that leads here."""
    port = urlsplit(strict.url).port
    for host in ("localhost", f"localhost:{port}", f"LOCALHOST:{port}", "127.0.0.1", "[::1]", f"[::1]:{port}"):
        assert httpx.get(f"{strict.url}/model", headers={"host": host}).status_code == 200, host
    for host in ("", "evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example",
                 "localhost:80@evil.example", "evil.example:localhost", "evil-localhost", "0.0.0.0"):  # fmt: skip
        answer = httpx.get(f"{strict.url}/model", headers={"host": host})
        assert answer.status_code == 421 and "names only" in answer.text, host


def test_pages_of_other_origins(strict: Any) -> None:
    """A form can be sent by any page, without asking: the browser names the page."""
    form = {"files": {"title": (None, "from a page")}}
    for origin in (
        "https://evil.example",
        "null",
        f"{OWN_PAGE}.evil.example",
        f"{OWN_PAGE}:8443",
        "http://page.example",
    ):
        answer = httpx.post(f"{strict.url}/songs", headers={"origin": origin}, **form)
        assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers
        ask = {"origin": origin, "access-control-request-method": "POST"}
        answer = httpx.options(f"{strict.url}/songs", headers=ask)
        assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers
    ask = {
        "origin": OWN_PAGE,
        "access-control-request-method": "DELETE",
        "access-control-request-headers": "authorization",
    }
    answer = httpx.options(f"{strict.url}/songs/a", headers=ask)
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == OWN_PAGE
    assert "DELETE" in answer.headers["access-control-allow-methods"]
    for origin, path, expected in ((OWN_PAGE, "/songs", 201), (strict.url, "/songs", 201), (OWN_PAGE, "/nope", 404)):
        assert httpx.post(f"{strict.url}{path}", headers={"origin": origin}, **form).status_code == expected
    large = httpx.post(f"{strict.url}/songs", headers={"origin": OWN_PAGE}, files={"audio": bytes(2 * MB)})
    assert large.status_code == 413 and large.headers["access-control-allow-origin"] == OWN_PAGE, "it can be read, too"
    assert [value for name, value in large.headers.multi_items() if name == "vary"] == ["Origin"]


def test_the_token_is_told_nowhere(live: Any, client: httpx.Client) -> None:
    client.post("/songs", content=b"x", headers=PARTS)
    httpx.get(f"{live.url}/model?{TOKEN}", headers={"authorization": f"Basic {TOKEN}"})
    assert TOKEN not in client.get("/metrics").text + client.get("/openapi.json").text + client.get("/model").text
    assert TOKEN.encode() not in Path(f"/proc/{live.process.pid}/cmdline").read_bytes()
    for child in children(live.process.pid):
        assert TOKEN.encode() not in Path(f"/proc/{child}/environ").read_bytes()
    log = next(Path(f"/proc/{live.process.pid}/fd/2").resolve().parent.glob("*.log")).read_text()
    assert TOKEN not in log and "Traceback" not in log


def test_words_of_strangers_are_no_figures(live: Any, client: httpx.Client) -> None:
    """Each method and path had rows of its own, which stayed: memory for everybody who can reach the port."""
    for n in range(50):
        assert httpx.request(f"METHOD{n}", f"{live.url}/healthz").status_code == 405
        assert client.request(f"METHOD{n}", "/songs").status_code == 405
        assert client.get(f"/nope/{n}").status_code == 404
    text = client.get("/metrics").text
    assert "METHOD" not in text and "nope" not in text
    assert 'firstplay_requests_total{method="other",route="/songs",status="405"} 50.0' in text


# ----------------------------------------------------------------------------------------------- sound that is no sound


def test_malformed_recordings_over_http(live: Any, client: httpx.Client) -> None:
    files = [(name, made(), expected) for name, made, expected in BAD]

    def post(case: tuple[str, bytes, Any]) -> tuple[str, int, str]:
        name, data, _ = case
        answer = client.post("/songs", files={"audio": (f'../{name}".mp3', data)}, params={"budget": 1})
        return name, answer.status_code, answer.text

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(post, files))
    for (name, data, expected), (_, code, text) in zip(files, answers, strict=True):
        possible = expected if isinstance(expected, set) else {expected}
        assert code in {201 if one == "good" else 422 for one in possible}, (name, text)
        assert code == 201 or "cannot be used" in text or ("nothing to encode" in text and not data), (name, text)
    assert Counter(code for _, code, _ in answers)[422] > 20
    assert live.process.poll() is None
    batch = [{"audio": base64.b64encode(data).decode()} for _, data, _ in files]
    results = client.post("/songs/batch", json={"songs": batch}).json()["results"]
    assert [one["status"] for one in results[1:]] == [code for _, code, _ in answers[1:]]


def test_decoders_are_killed_under_load(live: Any, client: httpx.Client) -> None:
    song = encoded(noise(20, 44100, 2), "flac", 44100)

    def post(_: int) -> tuple[int, str]:
        answer = client.post("/songs", files={"audio": song}, params={"budget": 1})
        return answer.status_code, answer.text

    def killed() -> list[tuple[int, str]]:
        with ThreadPoolExecutor(4) as threads:
            answers = [threads.submit(post, n) for n in range(24)]
            while not all(answer.done() for answer in answers):
                for child in children(live.process.pid):
                    os.kill(child, signal.SIGKILL)
                time.sleep(0.7)
        return [answer.result() for answer in answers]

    told = killed()
    for _ in range(9):  # a kill may meet no decoder at work
        told += [] if any("did not survive" in text for _, text in told) else killed()
    assert {code for code, _ in told} <= {201, 422, 503}  # the last: it had not begun
    assert any("did not survive" in text for _, text in told), "else nothing was killed in time"
    assert post(0)[0] == 201


# ------------------------------------------------------------------------------------------------------------ at once


def test_a_song_is_deleted_while_it_is_asked_for(client: httpx.Client) -> None:
    paths = ["", "/similar", "/audience?mode=boundary", "/audience?mode=cat", "/margins", "/clusters", "/audio"]
    more = ["/songs?limit=1000", "/songs?query=gone", "/users/u00003/recommendations?k=1000&margin=-1e6"]
    ids, asked, ended = [f"gone-{n}" for n in range(4)], Counter[int](), False

    def ask(n: int) -> None:
        while not ended:
            for path in [*(f"/songs/{ids[n]}{path}" for path in paths), *more]:
                answer = client.get(path)
                assert answer.status_code in (200, 404), (path, answer.text)
                asked[answer.status_code] += 1

    def churn() -> Counter[int]:
        found: Counter[int] = Counter()
        for _ in range(3):
            for song_id in ids:
                found[client.post("/songs", data={"title": "gone", "song_id": song_id}).status_code] += 1
                played = PLAYED | {"song_id": song_id, "user_id": "u00003"}
                found[client.post("/plays", json={"plays": [played]}).status_code] += 1
            for song_id in ids:
                found[client.delete(f"/songs/{song_id}").status_code] += 1
        return found

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask, n) for n in range(3)]
        try:
            found = churn()
        finally:
            ended = True
        for one in asking:
            one.result()
    assert found == {201: 12, 200: 12, 204: 12}, found
    assert min(asked[200], asked[404]) > 10


def test_one_id_many_times_at_once(client: httpx.Client) -> None:
    def post(n: int) -> int:
        if n % 2:
            return client.post("/songs", data={"title": f"t{n}", "song_id": "once"}).status_code
        songs = [{"title": f"t{n}", "song_id": "once"}]
        answer = client.post("/songs/batch", json={"songs": songs})
        return answer.json()["results"][0]["status"] if answer.status_code == 200 else answer.status_code

    with ThreadPoolExecutor(16) as threads:
        found = Counter(threads.map(post, range(32)))
    assert found == {201: 1, 409: 31}
    assert client.get("/songs", params={"query": "once"}).json()["total"] == 1


def stalled(service: Any, size: int) -> socket.socket:
    """A connection with an upload of which no more than a part comes."""
    head = request("POST /songs", f"Content-Length: {size}", f"Content-Type: {PARTS['content-type']}", token=None)
    connection = connected(service, 20)
    connection.sendall(head + part("audio", b"", '; filename="a"')[:-2])
    return connection


def test_no_more_than_there_is_room_for(strict: Any) -> None:
    """Eight of the largest requests fill it by their bytes, twelve of any by their number."""
    with strict.client() as client, ExitStack() as stack:

        def full(answer: httpx.Response) -> bool:
            return answer.status_code == 429 and answer.headers["retry-after"] == "1" and "too many" in answer.text

        for _ in range(8):
            stack.enter_context(stalled(strict, MB - 1000))
        wait_until(lambda: full(client.post("/songs", files={"audio": bytes(MB // 2)})))
        assert client.get("/model").status_code == 200, "a small one"
        more = 0
        while not full(client.get("/model")):
            stack.enter_context(stalled(strict, 100))
            more += 1
            time.sleep(0.05)
        assert 4 <= more < 10
        for path in ("/", "/healthz", "/readyz"):
            start = time.monotonic()
            assert client.get(path).status_code == 200 and time.monotonic() - start < 1
        stack.close()
        wait_until(lambda: client.post("/songs", files={"audio": bytes(MB // 2)}).status_code == 422)


def wait_until(true: Callable[[], bool], seconds: float = 1.5) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_who_is_slow_is_given_up(strict: Any) -> None:
    """Heads and bodies that stall or drip, and answers that nobody takes: all at once."""
    ((song_id, path),) = recordings(strict, 1).items()
    with path.open("wb") as file:
        file.truncate(64 * MB)  # more than lies between two ends of a connection

    def silent() -> socket.socket:
        return connected(strict)

    def second() -> socket.socket:
        connection = connected(strict)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b'{"status":"ok"}'):
            answer += connection.recv(1 << 16)
        return connection

    def ended(begin: Callable[[], socket.socket], dripping: bool) -> tuple[float, bytes]:
        start, found = time.monotonic(), b""
        with begin() as connection:
            connection.settimeout(0.2)
            with suppress(ConnectionError):
                while time.monotonic() < start + 15:
                    with suppress(TimeoutError):
                        found += (part := connection.recv(1 << 16))
                        if not part:
                            break
                    if dripping:
                        connection.sendall(b"x")
            return time.monotonic() - start, found

    def untaken() -> socket.socket:
        connection = connected(strict)
        connection.sendall(request(f"GET /songs/{song_id}/audio", token=None))
        assert status(connection.recv(1000)) == 200
        return connection

    heads = [(silent, False), (silent, True), (second, True)]
    bodies = [(partial(stalled, strict, 1000), False), (partial(stalled, strict, 1000), True)]
    with ThreadPoolExecutor(8) as threads, ExitStack() as stack:
        found = [threads.submit(ended, *case) for case in heads + bodies]
        taken = [stack.enter_context(untaken()) for _ in range(15)]
        assert httpx.get(f"{strict.url}/model").status_code == 200, "answers that nobody takes keep nobody waiting"
        time.sleep(MINIMUM_SECONDS + 2)
        assert all(len(rest(connection)) < 32 * MB for connection in taken)
    for took, answer in [one.result() for one in found[:3]]:
        assert MINIMUM_SECONDS - 0.5 < took < MINIMUM_SECONDS + 4 and answer == b"", (took, answer)
    for took, answer in [one.result() for one in found[3:]]:
        assert STALL - 0.5 < took < STALL + 3 and status(answer) == 408, (took, answer)
        assert b"did not come in time" in answer


def test_errors_name_no_folder(strict: Any) -> None:
    """A disk without room, and then a model that cannot be used: the old one goes on until there is a good one."""
    pid, told = strict.process.pid, []
    with strict.client() as client:
        limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, limits[1]))
        told += [client.post("/songs", data={"title": "no room"}), client.post("/plays", json={"plays": [PLAYED]})]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
        assert [answer.status_code for answer in told] == [503, 503] and "retry-after" in told[0].headers
        assert client.post("/songs", data={"title": "room again"}).status_code == 201
        manifest = strict.folder / "model" / "manifest.json"
        whole_manifest = manifest.read_bytes()
        manifest.unlink()
        wait_until(lambda: bool(client.get("/readyz").json()["reload_error"]), 10)
        told.append(client.get("/readyz"))
        assert told[-1].status_code == 200 and str(strict.folder) in client.get("/model").text, "to who has the token"
        assert "firstplay_model_refused 1" in client.get("/metrics").text
        assert client.post("/songs", data={"title": "The old one goes on"}).status_code == 201
        manifest.write_bytes(whole_manifest)
        wait_until(lambda: client.get("/readyz").json()["reload_error"] is None, 30)
    assert not [answer.text for answer in told if str(strict.folder) in answer.text or "sqlite" in answer.text]


# ------------------------------------------------------------------------------------------------------------ in time


def test_what_is_not_done_in_time(service_folder: Path, tmp_path: Path) -> None:
    """A service in this process, without time, and then with one decoder that can be made to hang."""
    audio = base64.b64encode(whole("wav")).decode()

    def post(client: TestClient, *songs: dict[str, str]) -> list[int]:
        return [one["status"] for one in client.post("/songs/batch", json={"songs": songs}).json()["results"]]

    def app(timeout: float) -> Any:
        options = [f"model={service_folder}", f"store={tmp_path}/store", f"timeout={timeout}", "decoders=1"]
        config = load(ServingConfig, options)
        return make_app(Engine(config.model, config.store, config.batch), config, None)

    with TestClient(app(1e-9), "http://localhost") as client:  # a millisecond is enough for a few words
        assert client.post("/songs", data={"title": "late"}).status_code == 503
        assert post(client, {"title": "late"}, {"audio": audio}) == [503, 503]
        assert client.get("/model").json()["accepted_songs"] == 0
    with TestClient(made := app(2.0), "http://localhost") as client:
        while post(client, {"audio": audio}) != [201]:  # the encoder warms up
            pass
        os.kill(made.app.app.state.service.decoders._workers[0].process.pid, signal.SIGSTOP)
        start = time.monotonic()
        assert post(client, *[{"audio": audio}] * 20) == [422, *[503] * 19], "one took its time, and that of the others"
        assert time.monotonic() - start < 2 + 3
        assert post(client, {"audio": audio}) == [201]


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/songs", "/songs/batch"])
def test_memory_is_bounded_under_the_largest_uploads(live: Any, client: httpx.Client, path: str) -> None:
    sound = encoded(noise(160, 44100, 2), "wav", 44100)[: 28 * MB if path == "/songs" else 21 * MB]
    batch = json.dumps({"songs": [{"audio": base64.b64encode(sound).decode()}]}).encode()
    post: dict[str, Any] = {"files": {"audio": sound}} if path == "/songs" else {"content": batch, "headers": JSON}
    assert client.post(path, **post).status_code in (200, 201)
    before = memory("VmRSS", live.process.pid)
    with ThreadPoolExecutor(65) as threads:
        answers = [threads.submit(client.post, path, **post) for _ in range(64)]
        while not all(answer.done() for answer in answers):
            start = time.monotonic()
            assert httpx.get(f"{live.url}/healthz", timeout=30).status_code == 200
            assert time.monotonic() - start < 5
            time.sleep(0.1)
    found = Counter(answer.result().status_code for answer in answers)
    assert found.keys() <= {200, 201, 429} and found[429] and found[429] < 64, found
    assert memory("VmHWM", live.process.pid) < before + 1200
