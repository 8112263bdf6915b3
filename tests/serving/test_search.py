"""Searches for songs: against the inner products of all songs, over HTTP, and many at once the same as one by one."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile

from configs.embedding import EmbedConfig
from configs.errors import UserError
from configs.serving import SearchConfig, ServiceConfig
from configs.targeting import IndexConfig
from configs.training import I2IConfig
from data.arrays import FloatArray
from pipeline import embed, index, service
from pipeline import search as command
from retrieval.index import unit_rows
from retrieval.queries import DISLIKED, best_of, centre, centred, example_vector, word_vectors
from serving import bulk_search, search
from serving.encoder import Content
from serving.model import Model
from serving.refusals import Refused
from serving.schemas import Search
from serving.state import State
from serving.store import StoredSong
from tests.serving.conftest import SMALL, run
from training import tasks as train

RNG = np.random.default_rng(0)
ZH = 'language == "zh"'


@pytest.fixture(scope="module")
def model(service_folder: Path) -> Model:
    return Model(service_folder)


@pytest.fixture
def state(model: Model) -> Iterator[State]:
    """The catalogue, and five accepted songs: four in Chinese, of which one has no words and no sound."""
    made = State(model)
    features = {name: unit_rows(RNG.standard_normal((5, width))) for name, width in model.encoder.widths.items()}
    features["clip_audio"][2:4] = np.nan
    features["clip_text"][3] = np.nan
    about = [
        {"language": "zh" if n else "en", "genres": ["folk"], "released_at": f"2026-0{n + 1}-01"} for n in range(5)
    ]
    songs = [
        StoredSong(f"in{n}", about[n], None, "2026-11-30", {name: of[n] for name, of in features.items()}, "")
        for n in range(5)
    ]
    vectors, items = model.encoder.vectors({name: of for name, of in features.items()}, [song.about for song in songs])
    made.add_songs(songs, vectors, items)
    yield made


def every_vector(state: State, by: str) -> FloatArray:
    """The vectors of all songs by number, NaN where a song has none: a second way to what the indexes hold."""
    model = state.model
    n = model.n_songs + len(state.accepted)
    if by != "text":
        return np.stack([state.vectors(number)[0] for number in range(n)])
    rows = [{name: of[number] for name, of in model.dense.items()} for number in range(model.n_songs)]
    rows += [state.accepted[number].features for number in range(model.n_songs, n)]
    known = np.setdiff1d(np.arange(model.n_songs), model.new)
    middle = {name: np.nanmean(model.dense[name][known], axis=0) for name in ("clip_audio", "clip_text")}
    found = []
    for row in rows:
        parts = [row[name] - middle[name] for name in middle]
        parts = [part / np.linalg.norm(part) for part in parts if np.isfinite(part).all()]
        found.append(np.mean(parts, axis=0) if parts else np.full(model.encoder.labels_LD.shape[1], np.nan))
    return np.stack(found)


def in_order(state: State, asked: search.Asked, wanted: Callable[[int, dict[str, Any]], bool]) -> list[int]:
    """All songs that are wanted, the nearest first, by comparing all."""
    score = every_vector(state, asked.by) @ asked.vector
    order = np.argsort(-np.where(np.isfinite(score), score, -np.inf), kind="stable").tolist()
    return [
        number for number in order
        if np.isfinite(score[number]) and number not in asked.named and wanted(number, state.about(number))
    ]  # fmt: skip


def queries(state: State) -> dict[str, search.Asked]:
    """One of each kind."""
    (text,) = search.of_texts(state, ["calm piano at night"])
    assert isinstance(text, search.Asked)
    ids = [state.song_id(number) for number in (0, 3, 8, int(state.model.new[0]))]
    recording = search.Asked(RNG.standard_normal(state.model.index.vectors.shape[1]).astype(np.float32), "recording")
    return {"text": text, "songs": search.of_songs(state, ids[:2], [*ids[2:], "in0"]), "recording": recording}


@pytest.mark.parametrize("kind", ["text", "songs", "recording"])
@pytest.mark.parametrize("k", [1, 7, 1000])
def test_the_nearest_songs_are_found_by_comparing_all(state: State, kind: str, k: int) -> None:
    asked, new = queries(state)[kind], {*state.model.new.tolist(), *state.accepted}
    tests: dict[tuple[Any, str | None], Callable[[int, dict[str, Any]], bool]] = {
        ("all", None): lambda number, _: True,
        ("known", None): lambda number, _: number not in new,
        ("new", None): lambda number, _: number in new,
        ("all", ZH): lambda _, about: about["language"] == "zh",
        ("new", f'{ZH} and released_at >= "2026-03-01" and "folk" in genres'): lambda number, about: (
            number in new and about["language"] == "zh" and (about["released_at"] or "") >= "2026-03-01"
            and "folk" in about["genres"]
        ),
        ("known", 'language == "no such"'): lambda number, _: False,
        ("all", 'song_id == "in1"'): lambda number, _: state.song_id(number) == "in1",
    }  # fmt: skip
    for (among, where), wanted in tests.items():
        scores, numbers = search.nearest(state, [asked], k, among, where)
        expected = in_order(state, asked, wanted)[:k]
        assert numbers[0][numbers[0] >= 0].tolist() == expected, (among, where)
        assert np.isneginf(scores[0][len(expected) :]).all() and (numbers[0][len(expected) :] == -1).all()
        np.testing.assert_allclose(scores[0][: len(expected)], every_vector(state, asked.by)[expected] @ asked.vector,
                                   rtol=0, atol=1e-4)  # fmt: skip
    assert len(in_order(state, asked, tests["all", ZH])) > 3, "else this test says little"


def test_songs_that_go_are_not_found(state: State) -> None:
    asked = queries(state)
    for song_id in ("in0", "in3", "in4"):  # of which in3 has nothing that a text is compared with
        state.remove_song(song_id)
    for one in asked.values():
        ids = {state.song_id(number) for number in search.nearest(state, [one], 1000)[1][0].tolist() if number >= 0}
        assert not ids & {"in0", "in3", "in4"} and "in1" in ids


def test_one_liked_song_finds_the_songs_that_are_similar_to_it(state: State) -> None:
    number = int(state.model.new[2])
    _, found = search.nearest(state, [search.of_songs(state, [state.song_id(number)])], 20, "known")
    _, similar = state.model.targeting.similar(state.vectors(number)[0][None], np.array([number]), 20)
    assert found[0].tolist() == similar[0][:20].tolist()


def test_a_song_that_is_named_twice_counts_once(state: State) -> None:
    once = search.of_songs(state, ["in0", "in1"], ["in2"])
    twice = search.of_songs(state, ["in0", "in1", "in0"], ["in2", "in2"])
    assert twice.vector.tolist() == once.vector.tolist() and twice.named == once.named


def test_examples_are_the_mean_less_a_part_of_the_others() -> None:
    liked, disliked = RNG.standard_normal((3, 5)), RNG.standard_normal((2, 5))
    np.testing.assert_allclose(example_vector(liked, disliked[:0]), liked.mean(axis=0), rtol=1e-6)
    wanted = liked.mean(axis=0) - DISLIKED * disliked.mean(axis=0)
    np.testing.assert_allclose(example_vector(liked, disliked), wanted, rtol=1e-5)


def test_words_and_sound_count_alike_whatever_their_length() -> None:
    sound, words = np.random.default_rng(3).standard_normal((2, 4, 6))  # its own: single precision bounds the error
    sound[1], words[2], sound[3], words[3] = np.nan, np.nan, np.nan, np.nan
    centres = np.stack([centre(sound), centre(9 * words)])
    found = word_vectors([sound, 9 * words], centres)
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (sound, words)]
    unit = [one - np.nanmean(one, axis=0) for one in unit]
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in unit]
    np.testing.assert_allclose(found[0], (unit[0][0] + unit[1][0]) / 2, rtol=1e-5)
    np.testing.assert_allclose(found[1:3], [unit[1][1], unit[0][2]], rtol=1e-5)
    assert np.isnan(found[3]).all()


def test_songs_of_words_alone_do_not_come_first() -> None:
    """Where all texts lie in one corner of the space, and all sounds in another."""
    topic, of_words, of_sound = RNG.standard_normal((3, 40, 16)) * 0.3
    words, sound = topic + 2 * of_words[0], topic + 2 * of_sound[0]
    words[:20], sound[20:] = np.nan, np.nan
    centres = np.stack([centre(sound), centre(words)])
    for number in (0, 5, 30):
        asked = centred((topic[number] + 2 * of_words[0])[None], centres[1])
        assert np.argmax(word_vectors([sound, words], centres) @ asked[0]) == number
        plain = word_vectors([sound, words], np.zeros_like(centres)) @ unit_rows(topic[number] + 2 * of_words[0])
        assert plain[20:].min() > plain[:20].max(), "else this test says little"


def test_lists_are_merged_without_the_named() -> None:
    one = np.array([[3.0, 1.0, -np.inf]], dtype=np.float32), np.array([[7, 2, -1]])
    other = np.array([[2.0, 0.5]], dtype=np.float32), np.array([[11, 12]])
    scores, numbers = best_of([one, other], 4, [[7]])
    assert numbers.tolist() == [[11, 2, 12, -1]] and scores[0][:3].tolist() == [2.0, 1.0, 0.5]


@pytest.mark.parametrize(
    ("like", "dislike", "reason"),
    [
        (["in0", "nobody"], [], "no song 'nobody'"),
        (list("abcde"), [], "no song 'a', 'b', 'c', …"),
        (["in0"], ["in1", "in0"], "'in0' is both liked and disliked"),
        (["in0", "in0"], ["nobody", "nobody"], "no song 'nobody'"),
    ],
)
def test_wrong_examples(state: State, like: list[str], dislike: list[str], reason: str) -> None:
    with pytest.raises(Refused, match=f"^{reason}$"):
        search.of_songs(state, like, dislike)


def test_a_text_of_unknown_words_and_a_wrong_condition(state: State) -> None:
    unread, read = search.of_texts(state, ["𓀀𓀁𓀂", "piano"])
    assert isinstance(unread, Refused) and isinstance(read, search.Asked) and unread.status == 422
    for where in ("colour == 3", "language ==", "language == 3"):
        with pytest.raises(Refused, match=r"^where: .*columns: "):
            search.nearest(state, [read], 5, where=where)


def test_texts_that_come_together_are_what_they_are_alone(model: Model) -> None:
    texts = ["calm", "a loud and fast song about a very long road home", "piano"]
    alone = np.concatenate([model.encoder.phrases([text]) for text in texts])
    np.testing.assert_allclose(model.encoder.phrases(texts), alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------------ over HTTP


def sound(seconds: float = 2.0) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, RNG.normal(0, 0.1, int(seconds * 16000)), 16000, format="WAV")
    return out.getvalue()


def test_a_search_over_http(live: Any, model: Model) -> None:
    recording = sound()
    with live.client() as client:
        posted = client.post("/songs", data={"title": "calm piano at night", "language": "zh", "song_id": "calm"})
        assert posted.status_code == 201
        found = client.post("/search", json={"text": "calm piano at night", "k": 5}).raise_for_status().json()
        assert found["by"] == "text" and [one["song_id"] for one in found["songs"]].index("calm") < 5
        scores = [one["score"] for one in found["songs"]]
        assert scores == sorted(scores, reverse=True) and max(scores) <= 1.0001
        new = client.post("/search", json={"text": "calm", "among": "new", "where": ZH, "k": 1000}).json()["songs"]
        assert all(one["new"] for one in new) and "calm" in {one["song_id"] for one in new}
        liked = client.post("/search", json={"like": ["calm"], "among": "known", "k": 10}).json()
        similar = client.get("/songs/calm/similar", params={"k": 10}).json()["similar"]
        assert liked["by"] == "songs" and [one["song_id"] for one in liked["songs"]] == [
            one["song_id"] for one in similar
        ]
        before = client.get("/model").json()["accepted_songs"]
        audio = base64.b64encode(recording).decode()
        heard = client.post("/search", json={"audio": audio, "k": 10}).raise_for_status().json()
        assert heard["by"] == "recording" and len(heard["songs"]) == 10
        assert client.get("/model").json()["accepted_songs"] == before, "nothing is kept"
        client.delete("/songs/calm")
        gone = client.post("/search", json={"text": "calm piano at night", "k": 1000}).json()["songs"]
        assert "calm" not in {one["song_id"] for one in gone}


def test_a_text_is_read_that_is_known_for_the_most_part(model: Model) -> None:
    state = State(model)
    found = search.of_texts(state, ["calm piano", "calm 钢 piano 琴", "calm 钢琴", "", "[UNK]"])
    assert [isinstance(one, Refused) for one in found] == [False, False, True, True, True]


def test_chinese_finds_songs_in_both_languages_where_the_text_model_reads_it(trained: Path, tmp_path: Path) -> None:
    data, features = f"data={trained}/catalogue", f"features={tmp_path}/features"
    told = ["text.model=use-multilingual", "text.fields=[title]"]
    run(embed.main, EmbedConfig, data, f"out={tmp_path}/features", *told)
    fields = ["fields.use=[text,genres]", "bcl_batch_size=64", *SMALL]
    run(train.train_i2i, I2IConfig, data, features, f"out={tmp_path}/i2i", *fields)
    run(index.main, IndexConfig, f"run={tmp_path}/i2i", f"out={tmp_path}/index")
    run(service.main, ServiceConfig, f"index={tmp_path}/index", f"out={tmp_path}/service")
    state = State(Model(tmp_path / "service"))
    titles = ["月光下的钢琴曲", "Quiet piano at night", "重金属摇滚现场", "Loud metal guitars"]
    about: list[dict[str, Any]] = [{"title": title} for title in titles]
    made = state.model.encoder.features([Content(one) for one in about])
    songs = [
        StoredSong(title, about[at], None, "2026-11-30", {name: made[name][at] for name in made}, "")
        for at, title in enumerate(titles)
    ]
    state.add_songs(songs, *state.model.encoder.vectors(made, about))
    piano, metal = titles[:2], titles[2:]
    for text, near, far in (("安静的钢琴", piano, metal), ("quiet piano", piano, metal), ("摇滚", metal, piano)):
        _, numbers = search.nearest(state, [search.asked(state, Search(text=text))], 1000)
        found = [title for title in map(state.song_id, numbers[0][numbers[0] >= 0].tolist()) if title in titles]
        assert found[0] in near and len(found) == 4, f"{text}: {found}"
        for one, other in zip(near, far, strict=True):  # in the same language
            assert found.index(one) < found.index(other), f"{text}: {found}"


@pytest.mark.parametrize(
    ("asked", "status", "reason"),
    [
        ({}, 422, "give one of text, like and audio"),
        ({"text": "calm", "like": ["a"]}, 422, "give one of text, like and audio"),
        ({"text": "  "}, 422, "at least 1 character"),
        ({"text": "x" * 501}, 422, "at most 500 characters"),
        ({"text": "钢琴"}, 422, "does not know most of these words"),
        ({"text": "安静的钢琴"}, 422, "does not know most of these words"),  # two of five are known
        ({"text": "calm", "dislike": ["a"]}, 422, "dislike goes with like"),
        ({"dislike": ["a"]}, 422, '"msg": "dislike goes with like: name at least one song that is liked"'),
        ({"text": '" . . ."'}, 422, "this text has no word"),
        ({"text": "calm", "where": "released_at >= '01/02/2024'"}, 422, "where: released_at holds days, not"),
        ({"like": ["x"] * 101}, 422, "at most 100 items"),
        ({"like": ["nobody's"]}, 404, 'no song "nobody\'s"'),
        ({"audio": "no base64"}, 422, "audio is not base64"),
        ({"audio": "bm8gc291bmQ="}, 422, "the recording cannot be used"),
        ({"text": "calm", "where": "colour == 3"}, 422, "columns: "),
        ({"text": "calm", "k": 1001}, 422, "less than or equal to 1000"),
        ({"text": "calm", "colour": 3}, 422, "Extra inputs"),
    ],
)
def test_wrong_searches(live: Any, asked: dict[str, Any], status: int, reason: str) -> None:
    with live.client() as client:
        answer = client.post("/search", json=asked)
        assert answer.status_code == status and reason in json.dumps(answer.json(), ensure_ascii=False).replace(
            '\\"', '"'
        )
        assert client.post("/search", json=asked, headers={"authorization": ""}).status_code == 401


# ------------------------------------------------------------------------------------------------------- many at once


def test_many_at_once_are_answered_as_the_service_answers(
    live: Any, service_folder: Path, model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = model.song_ids
    asked: list[dict[str, Any]] = [
        {"text": "calm piano at night", "k": 30},
        {"text": "quiet piano", "k": 30, "where": ZH},
        {"text": "loud", "k": 7, "among": "new"},
        {"text": "calm", "k": 30},
        {"like": [ids[1], ids[2]], "dislike": [ids[5]], "k": 30},
        {"like": [ids[9]], "among": "known"},
        {"audio": "sound.wav", "k": 30},
    ]
    recording = sound()
    (tmp_path / "sound.wav").write_bytes(recording)
    wrong = ["{no json", '{"like": ["nobody"]}', '{"audio": "not_there.wav"}', '{"text": "a", "where": "b == 1"}']
    wrong += ['{"text": "安静的钢琴"}']
    lines = [json.dumps(one) for one in asked[:3]] + ["", *wrong] + [json.dumps(one) for one in asked[3:]]
    (tmp_path / "queries.jsonl").write_text("\n".join(lines))
    options = f"model={service_folder}", f"queries={tmp_path}/queries.jsonl", f"out={tmp_path}/found"
    run(command.main, SearchConfig, *options)
    told = capsys.readouterr().out
    assert "5 lines skipped" in told and "line 6 is skipped: no song 'nobody'" in told
    table = pl.read_parquet(tmp_path / "found" / "results.parquet")
    assert table.columns == ["query", "song_id", "rank", "score"]
    assert set(json.loads((tmp_path / "found" / "manifest.json").read_text())["skipped"]) == {"5", "6", "7", "8", "9"}
    with live.client() as client:
        for line, one in zip([1, 2, 3, 10, 11, 12, 13], asked, strict=True):
            if "audio" in one:
                one = one | {"audio": base64.b64encode(recording).decode()}
            answer = client.post("/search", json=one).raise_for_status().json()["songs"]
            rows = table.filter(pl.col("query") == line)
            assert rows["song_id"].to_list() == [song["song_id"] for song in answer], one
            assert rows["rank"].to_list() == list(range(1, len(answer) + 1))
            np.testing.assert_allclose(rows["score"], [song["score"] for song in answer], atol=2e-5)


def test_a_recording_in_which_there_is_nothing_is_refused_as_by_the_service(
    live: Any, service_folder: Path, tmp_path: Path
) -> None:
    for name, wave in (("silent", np.zeros(32_000)), ("short", np.full(800, 0.5))):
        soundfile.write(tmp_path / f"{name}.wav", wave, 16_000)
        content = base64.b64encode((tmp_path / f"{name}.wav").read_bytes()).decode()
        with live.client() as client:
            assert client.post("/search", json={"audio": content}).status_code == 422
    (tmp_path / "queries.jsonl").write_text('{"audio": "silent.wav"}\n{"audio": "short.wav"}\n')
    options = f"model={service_folder}", f"queries={tmp_path}/queries.jsonl", f"out={tmp_path}/found"
    with pytest.raises(UserError, match="no line can be answered"):
        run(command.main, SearchConfig, *options)


def test_queries_are_lines_of_json_however_an_editor_ends_them(tmp_path: Path) -> None:
    lines = ['{"text": "one"}', '{"text": "two\u2028\x85 lines"}', "", '{"dislike": ["a"]}', '{"text": "three"}']
    (tmp_path / "queries.jsonl").write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    found, skipped = bulk_search.read_queries(tmp_path / "queries.jsonl")
    assert {line: one.text for line, one in found.items()} == {1: "one", 2: "two\u2028\x85 lines", 5: "three"}
    assert skipped == {4: "dislike goes with like: name at least one song that is liked"}


def test_a_query_that_finds_no_song_is_named(
    service_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [{"text": "calm", "where": "language == 'xx'"}, {"text": "calm", "k": 2}, {"text": "…"}]
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, asked)))
    options = f"model={service_folder}", f"queries={tmp_path}/queries.jsonl", f"out={tmp_path}/found"
    run(command.main, SearchConfig, *options)
    told, manifest = capsys.readouterr().out, json.loads((tmp_path / "found" / "manifest.json").read_text())
    assert "  no song is found for line 1\n" in told and "2 songs for 2 queries; 1 lines skipped" in told
    assert manifest["without_songs"] == [1] and manifest["skipped"] == {"3": search.WORDLESS}


def test_a_file_without_an_answer(service_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "queries.jsonl").write_text("[]\n")
    options = f"model={service_folder}", f"queries={tmp_path}/queries.jsonl", f"out={tmp_path}/found"
    with pytest.raises(UserError, match="no line can be answered"):
        run(command.main, SearchConfig, *options)
    assert not (tmp_path / "found").exists()
