"""mode=rank in the service: the lists of the command, plays that come in, songs of which little is told, reasons."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from benchmarks.speed.serve_process import ROOT, serving
from configs.errors import UserError
from configs.load import load
from configs.ranking import RankConfig
from configs.serving import ServiceConfig
from configs.targeting import AudienceConfig
from data.catalogue import Catalogue
from data.contract.columns import ABOUT
from data.play_tables import strength
from inference.ranking import DAY, facts_of, play_log, song_facts
from inference.targeting import targeting_of
from inference.vectors import Boundary
from pipeline import audience, service
from retrieval.candidates import Candidates
from retrieval.listening import Listening
from retrieval.play_log import COLUMNS, PlayLog
from retrieval.rank_features import OF_FIELDS, OF_HISTORY, OF_USER
from retrieval.ranking import Examples
from retrieval.targeting import Targeting
from serving import answers, shown
from serving.engine import Engine
from serving.model import Model
from serving.state import State
from serving.store import Play, StoredSong
from tests.serving.conftest import TOKEN, run
from tests.serving.test_answers import stored
from tests.serving.test_engine import accept, replace
from tests.serving.test_targeting import MARKS, as_batch
from training.ranking import train_rank

BUDGET = 12
OF_OTHERS = (*OF_HISTORY, *OF_FIELDS, *OF_USER)  # features that recall does not move
NOW = datetime(2026, 11, 29, tzinfo=UTC)


@pytest.fixture
def state(service_folder: Path) -> State:
    """A state that a test may change."""
    return State(Model(service_folder))


@pytest.fixture(scope="module")
def networked(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a rank run whose model is a network, and the service folder of it."""
    at = tmp_path_factory.mktemp("network")
    small = [
        f"network.{one}" for one in ("epochs=3", "parts=2", "dim=8", "heads=2", "hidden=8", "history=6", "lr=0.02")
    ]
    runs = [f"i2i={trained}/i2i", f"boundary={trained}/boundary", f"data={trained}/catalogue", f"out={at}/rank"]
    run(train_rank, RankConfig, "model=network", "depth=20", *runs, *small)
    models = [f"index={trained}/index", f"boundary={trained}/boundary", f"rank={at}/rank"]
    run(service.main, ServiceConfig, *models, f"out={at}/service")
    return at


@pytest.fixture(params=["trees", "network"])
def either(request: pytest.FixtureRequest, trained: Path) -> tuple[State, Path]:
    """A state that a test may change, of each kind of ranker, and the rank run of it."""
    at: Path = trained if request.param == "trees" else request.getfixturevalue("networked")
    return State(Model(at / "service")), at / "rank"


@pytest.fixture(scope="module")
def without(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service folder without a ranker."""
    out = tmp_path_factory.mktemp("without") / "service"
    run(service.main, ServiceConfig, f"index={trained}/index", f"boundary={trained}/boundary", f"out={out}")
    return out


def ranked(state: State, number: int, budget: int = BUDGET, gate: bool = False, margin: float = 0.0) -> answers.Reached:
    return answers.audience(state, number, "rank", budget, gate, margin)


# ------------------------------------------------------------------------------------------------- the same as a batch


@pytest.mark.parametrize("gate", [False, True])
def test_a_ranked_audience_is_that_of_the_command(
    either: tuple[State, Path], trained: Path, tmp_path: Path, gate: bool
) -> None:
    """Of the first song of a pool: k-means, which names some candidates, draws by a song's place."""
    state, rank = either
    model = state.model
    released = model.songs["released_at"].gather(model.new).dt.date().unique().sort()
    for since in released.gather([0, len(released) // 2, len(released) - 1]):
        out = tmp_path / str(since)
        options = [f"index={trained}/index", f"boundary={trained}/boundary", f"rank={rank}", f"since={since}"]
        options += ["split=cold", f"gate={str(gate).lower()}", "targeting.margin=0.05", f"targeting.budget={BUDGET}"]
        audience.main(load(AudienceConfig, ["mode=rank", f"out={out}", *options]))
        rows = pl.read_parquet(out / "audience.parquet")
        rows = rows.filter(pl.col("song_id") == rows["song_id"][0])
        number = state.number(rows["song_id"][0])
        assert number is not None and rows.height > 3
        found = ranked(state, number, gate=gate, margin=0.05)
        assert [model.user_ids[int(user)] for user in found.users_B] == rows["user_id"].to_list()
        close = 1e-4 if rank.parent != trained else 0.0  # a network follows features in their last bits
        np.testing.assert_allclose(found.scores_B.astype(np.float32), rows["score"].to_numpy(), rtol=close)
        listeners = shown.audience(state, number, "rank", BUDGET, gate, 0.05).users
        named = [[one.model_dump() for one in user.named_by or ()] for user in listeners]
        assert named == rows["named_by"].to_list() and all(named)
        raised = [[(one.feature, one.words) for one in user.raised_by or ()] for user in listeners]
        assert raised == [[(one["feature"], one["words"]) for one in of] for of in rows["raised_by"]]
        assert any(raised)
        if "attended_to" not in rows.columns:
            assert all(one.attended_to is None for one in listeners) and rank.parent == trained
            continue
        attended = [[of.song_id for of in one.attended_to or ()] for one in listeners]
        assert attended == [[one["song_id"] for one in of] for of in rows["attended_to"]]
        assert any(attended)


def batch_of(state: State, plays: list[Play]) -> Targeting:
    """Targeting on a catalogue that has these plays of known songs beside its own."""
    model = state.model
    log, ranker = play_log(Catalogue.read(model.catalogue.manifest["of"])), model.targeting.ranker
    assert ranker is not None
    known = [one for one in plays if model.song_of[one.song_id] not in state.pool.row_of]
    heard = [dataclasses.replace(one, completed=False) if one.skipped else one for one in known]
    more: dict[str, list[Any]] = {
        "user_N": [model.user_of[one.user_id] for one in known],
        "song_N": [model.song_of[one.song_id] for one in known],
        "day_N": [
            (one.played_at - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1) / DAY for one in known
        ],  # type: ignore[operator]
        "strength_N": [0.0 if one.skipped and not one.favourited else strength(one) for one in known],
        **{
            f"{name}_N": [math.nan if (mark := getattr(one, name)) is None else float(mark) for one in heard]
            for name in ("completed", "favourited", "disliked")
        },
    }
    columns = {
        name: np.append(getattr(log, name), np.array(more[name], dtype=getattr(log, name).dtype)) for name in COLUMNS
    }
    order = np.argsort(columns["day_N"], kind="stable")
    whole = PlayLog(**{name: of_N[order] for name, of_N in columns.items()}, n_users=log.n_users)
    listening = model.listening_US.tolil()
    for one in known:
        at = model.user_of[one.user_id], model.song_of[one.song_id]
        if not one.skipped or one.favourited:
            listening[at] = max(listening[at], strength(one))
    none: Any = None
    boundary = Boundary(none, model.item_SD, model.user_UD, model.boundary_U)  # the vectors as they are now
    source = type(ranker.source)(**vars(ranker.source) | {"log": whole})
    ours = dataclasses.replace(ranker, source=source)
    batch = targeting_of(model.index, Listening(listening.tocsr()), model.options, boundary, ours)
    batch.activity_U, batch.popularity_S = model.targeting.activity_U, model.targeting.popularity_S
    return batch


@pytest.mark.parametrize("seed", range(3))
def test_plays_that_come_in_count_as_in_a_batch(either: tuple[State, Path], seed: int) -> None:
    """Plays of all kinds, before and after the songs' releases; some are of new songs, and are no history."""
    state, _ = either
    model, rng = state.model, np.random.default_rng(seed)
    songs = [*rng.choice(model.catalogue.rows("warm"), 20), *model.new[:3]]
    plays = [
        Play(
            model.user_ids[int(user)],
            model.song_ids[int(rng.choice(songs))],
            played_at,
            **MARKS[int(rng.integers(len(MARKS)))],
        )
        for user in rng.integers(0, 40, 150)
        for played_at in [datetime(2026, 4, 1, tzinfo=UTC) + timedelta(hours=int(rng.integers(24 * 120)))]
    ]
    before = [ranked(state, int(number)) for number in model.new[:8]]
    state.add_plays(plays)
    batch, moved = batch_of(state, plays), 0
    known = int(model.catalogue.rows("warm")[3])
    for place, number in enumerate([*model.new[:8].tolist(), known]):
        asked = as_batch(state, batch, [number])
        if number == known:
            asked = answers.song_of(state, number)
        assert batch.ranker is not None
        asked.facts = song_facts(batch.ranker.source, model.catalogue, np.array([number]))
        found, ours = batch.audience(asked, "rank", BUDGET), ranked(state, number)
        n = int((found.users_CB >= 0).sum())
        assert n == len(ours.users_B) > 0
        np.testing.assert_allclose(ours.scores_B, found.scores_CB[0, :n], rtol=1e-5)
        np.testing.assert_array_equal(ours.users_B, found.users_CB[0, :n])
        moved += place < 8 and not np.array_equal(ours.scores_B, before[place].scores_B)
    assert moved > 4, "else these plays say little"


def test_a_song_that_comes_in_is_ranked_as_the_same_one_of_the_catalogue(either: tuple[State, Path]) -> None:
    state, _ = either
    model = state.model
    for at in range(4):
        like = int(model.new[at])
        state.add_songs([stored(model, f"copy {at}", like)[0]], *stored(model, f"copy {at}", like)[1:])
        number = state.number(f"copy {at}")
        assert number is not None
        theirs, ours = ranked(state, like), ranked(state, number)
        np.testing.assert_array_equal(ours.users_B, theirs.users_B)
        np.testing.assert_allclose(ours.scores_B, theirs.scores_B, rtol=1e-5)


def test_the_content_of_a_song_that_comes_in_counts(networked: Path) -> None:
    """Attention reads the song's own fields: those of another song move it, and nothing else does."""
    state = State(Model(networked / "service"))
    like, other = state.model.new[:2].tolist()
    song, vectors, items = stored(state.model, "mine", like)
    moved = dataclasses.replace(song, features=stored(state.model, "other", other)[0].features)
    for one, song_id in ((song, "mine"), (moved, "moved")):
        state.add_songs([dataclasses.replace(one, song_id=song_id)], vectors, items)
    mine, theirs = (ranked(state, int(state.number(name) or 0), 99) for name in ("mine", "moved"))
    np.testing.assert_array_equal(np.sort(mine.users_B), np.sort(theirs.users_B))
    assert np.ptp(mine.scores_B[np.argsort(mine.users_B)] - theirs.scores_B[np.argsort(theirs.users_B)]) > 1e-4


# --------------------------------------------------------------------------------------------------------------- facts


def test_facts_of_a_song_that_comes_in(state: State) -> None:
    model, source = state.model, state.model.targeting.ranker.source  # type: ignore[union-attr]
    for song in [*model.new[:20].tolist(), 0, 1]:
        ours = facts_of(source, model.about(song))
        for name, theirs in song_facts(source, model.catalogue, np.array([song])).fields.items():
            np.testing.assert_array_equal(ours.fields[name].toarray(), theirs.toarray(), err_msg=name)
        assert ours.before_C[0] == source.songs.released_S[song]
    nothing = facts_of(source, dict.fromkeys(ABOUT))
    assert np.isnan(nothing.before_C[0]) and all(of.nnz == 0 for of in nothing.fields.values())
    mixed = facts_of(
        source, {"genres": ["nobody knows it", next(iter(source.songs.codes["genres"]))], "artist_id": "new"}
    )
    assert mixed.fields["genres"].toarray()[0, [0, -1]].tolist() == [0.5, 0.5]
    assert mixed.fields["artist"].toarray()[0, -1] == 1.0


def features_of(state: State, number: int, of: Candidates) -> dict[str, np.ndarray]:
    """Features of candidates of a song, those of channels as they were."""
    targeting, songs = state.model.targeting, answers.song_of(state, number)
    assert targeting.ranker is not None
    songs.facts, source = answers.facts(state, number), targeting.ranker.source
    return dict(zip(source.names, source.features(targeting, songs, of).T, strict=True))


def candidates_of(state: State, number: int) -> Candidates:
    targeting = state.model.targeting
    assert targeting.ranker is not None
    return targeting.candidates(answers.song_of(state, number), targeting.ranker.depth)


@pytest.mark.parametrize(("about", "now"), [({}, True), ({"released_at": "2026-05-02"}, False)])
def test_a_song_of_which_nothing_is_told(state: State, about: dict[str, Any], now: bool) -> None:
    """It is ranked by what its vector says. Without a date it is asked for now, and plays of today count."""
    model, like = state.model, int(state.model.new[0])
    features = {name: np.array(dense[like]) for name, dense in model.dense.items()}
    bare = StoredSong("bare", about, None, "2026-11-26T00:00:00+00:00", features, "")
    state.add_songs([bare], model.index.vectors[like][None], model.item_SD[like][None])
    number = state.number("bare")
    assert number is not None and len(ranked(state, number).users_B) == BUDGET
    candidates = candidates_of(state, number)
    before = features_of(state, number, candidates)
    assert all(np.isnan(before[f"{name}_share"]).all() for name in ("artist", "genres", "language", "tags"))
    known = model.song_ids[int(model.catalogue.rows("warm")[0])]
    state.add_plays([Play(user, known, NOW) for user in model.user_ids])
    after = features_of(state, number, candidates)
    assert (np.nanmin(after["recency"]) == np.nanmax(after["recency"]) == 0) == now
    np.testing.assert_array_equal(after["activity"] == before["activity"], not now)


def test_a_song_is_not_ranked_by_plays_of_its_own_day_or_later(state: State) -> None:
    model = state.model
    number = int(model.new[0])
    day = model.songs["released_at"][number].replace(tzinfo=UTC)
    candidates = candidates_of(state, number)
    before, taste_UD = features_of(state, number, candidates), model.targeting.taste.user_UD.copy()
    known, users = model.song_ids[int(model.catalogue.rows("warm")[0])], candidates.user_P[:5].tolist()
    state.add_plays([Play(model.user_ids[user], known, day + timedelta(hours=at)) for user in users for at in (0, 9)])
    assert not np.array_equal(taste_UD, model.targeting.taste.user_UD), "recall takes them as they come"
    after = features_of(state, number, candidates)
    assert model.plays is not None and model.plays.size == 10
    for name in OF_OTHERS:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    state.add_plays([Play(model.user_ids[user], known, day - timedelta(hours=1)) for user in users])
    earlier = features_of(state, number, candidates)
    assert (earlier["activity"] > before["activity"]).sum() == 5 and (earlier["recency"][:5] == 0).all()


# ------------------------------------------------------------------------------------ exclusions, gate, budget, reasons


def test_exclusions_gate_and_budget(state: State) -> None:
    model, number = state.model, int(state.model.new[1])
    everybody = ranked(state, number, model.n_users)
    depth = model.targeting.ranker.depth  # type: ignore[union-attr]
    assert depth < len(everybody.users_B) <= 4 * depth, "candidates, and nobody else"
    first = everybody.users_B[:3].tolist()
    state.add_plays([Play(model.user_ids[user], state.song_id(number), skipped=True) for user in first])
    assert not set(first) & set(ranked(state, number, model.n_users).users_B.tolist())
    margin = float(np.median(everybody.margins_B))
    gated = ranked(state, number, model.n_users, True, margin)
    assert 0 < len(gated.users_B) < len(everybody.users_B) and (gated.margins_B > margin).all()
    short = ranked(state, number, 2)
    assert short.users_B.tolist() == ranked(state, number, model.n_users).users_B[:2].tolist()


def test_reasons_say_who_named_a_user_and_what_raised_the_score(state: State) -> None:
    targeting, number = state.model.targeting, int(state.model.new[2])
    assert targeting.ranker is not None and targeting.ranker.contributions is not None
    songs = answers.song_of(state, number)
    songs.facts = answers.facts(state, number)
    ranker, source = targeting.ranker, targeting.ranker.source
    candidates = targeting.candidates(songs, ranker.depth)
    feature_PF = source.features(targeting, songs, candidates)
    examples = Examples(candidates.song_P, candidates.user_P, feature_PF, source.names, source.codes)
    contribution_PF, score_P = targeting.ranker.contributions(examples), ranker.score(examples)
    rest = score_P - contribution_PF.sum(axis=1)
    np.testing.assert_allclose(rest, rest[0], atol=1e-6, err_msg="they sum to the score, less the mean score")
    lists = {
        mode: targeting.audience(songs, mode, ranker.depth, margin=-np.inf).users_CB[0] for mode in candidates.channels
    }  # type: ignore[arg-type]
    users = shown.audience(state, number, "rank", BUDGET, False, 0.0).users
    for user in users:
        who = state.model.user_of[user.user_id]
        named = {mode: np.flatnonzero(of_B == who)[0] + 1 for mode, of_B in lists.items() if who in of_B}
        assert {one.channel: one.rank for one in user.named_by or ()} == named != {}
        row = int(np.flatnonzero(candidates.user_P == who)[0])
        best = [at for at in np.argsort(-contribution_PF[row], kind="stable")[:3] if contribution_PF[row, at] > 0]
        assert [one.feature for one in user.raised_by or ()] == [source.names[at] for at in best]
        np.testing.assert_allclose([one.by for one in user.raised_by or ()], contribution_PF[row, best])
        np.testing.assert_equal(
            [one.value if one.value is not None else np.nan for one in user.raised_by or ()], feature_PF[row, best]
        )
    assert any(user.raised_by for user in users) and all(user.because for user in users)


def test_reasons_of_a_network(networked: Path) -> None:
    """Features that raised the score, the strongest first, and songs that they had heard before the song's release."""
    state = State(Model(networked / "service"))
    number = int(state.model.new[2])
    users = shown.audience(state, number, "rank", BUDGET, False, 0.0).users
    assert any(user.raised_by for user in users) and any(user.attended_to for user in users)
    released = state.model.songs["released_at"][number]
    plays = Catalogue.read(state.model.catalogue.manifest["of"]).plays.filter(
        (pl.col("strength") > 0) & (pl.col("played_at") < released)
    )
    for user in users:
        heard = (
            plays.filter(pl.col("user") == state.model.user_of[user.user_id])["song"]
            .reverse()
            .unique(maintain_order=True)
        )
        newest = {state.model.song_ids[song] for song in heard[:6].to_list()}
        shares = [one.share for one in user.attended_to or ()]
        assert {one.song_id for one in user.attended_to or ()} <= newest and len(shares) == min(3, len(newest))
        assert shares == sorted(shares, reverse=True) and sum(shares) < 1 and all(one > 0 for one in shares)
        by = [one.by for one in user.raised_by or ()]
        assert by == sorted(by, reverse=True) and all(one > 0 for one in by)


def test_a_model_that_cannot_tell_leaves_the_channels(state: State) -> None:
    assert state.model.targeting.ranker is not None
    state.model.targeting.ranker.contributions = None
    users = shown.audience(state, int(state.model.new[0]), "rank", BUDGET, False, 0.0).users
    assert all(user.named_by and user.raised_by == [] for user in users)
    assert shown.audience(state, int(state.model.new[0]), "taste", BUDGET, False, 0.0).users[0].named_by is None


# --------------------------------------------------------------------------------------------------- folders and swaps


def test_without_a_ranker_the_folder_is_as_before(without: Path, service_folder: Path) -> None:
    assert not (without / "rank").exists() and "ranker" not in json.loads((without / "manifest.json").read_text())
    files = [sorted(path.relative_to(of).as_posix() for path in of.rglob("*")) for of in (without, service_folder)]
    assert [one for one in files[1] if one.split("/")[0] != "rank"] == files[0]
    model = Model(without)
    assert not model.has_ranker and "rank" not in model.modes
    names = sorted(path.name for path in (service_folder / "rank").iterdir())
    assert names == ["manifest.json", "model.txt", "ranker.json", "vocabulary.json"], "no examples, no folds"
    assert Model(service_folder).version != model.version


def test_the_folder_of_a_network(networked: Path, tmp_path: Path) -> None:
    """Its keys are as many as songs; the service needs neither Lightning nor LightGBM; a damaged file is told."""
    folder = networked / "service"
    names = sorted(path.name for path in (folder / "rank").iterdir())
    assert names == ["config.json", "keys.npy", "manifest.json", "model.safetensors", "ranker.json", "vocabulary.json"]
    assert np.load(folder / "rank" / "keys.npy").shape == (160, 8)
    code = (
        "import sys; sys.modules['lightgbm'] = None; from serving.model import Model; "
        f"assert Model({str(folder)!r}).has_ranker and 'lightning' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
    copied = shutil.copytree(folder, tmp_path / "copied")
    np.save(copied / "rank" / "keys.npy", np.zeros((159, 8), dtype=np.float32))
    with pytest.raises(UserError, match=r"keys\.npy: shape \(159, 8\), expected \(160, dim\)"):
        Model(copied)
    (copied / "rank" / "keys.npy").unlink()
    with pytest.raises(UserError, match="is damaged"):
        Model(copied)


def test_a_ranker_of_other_models_is_refused(trained: Path, service_folder: Path, tmp_path: Path) -> None:
    given = [f"index={trained}/index", f"rank={trained}/rank", f"out={tmp_path}/service"]
    with pytest.raises(UserError, match="was fitted with another boundary model, or with one: give boundary="):
        run(service.main, ServiceConfig, *given)
    with pytest.raises(UserError, match=r"was fitted with targeting\.neighbours=100: give the same options"):
        run(service.main, ServiceConfig, *given, f"boundary={trained}/boundary", "targeting.neighbours=9")
    assert not (tmp_path / "service").exists()
    mixed = shutil.copytree(service_folder, tmp_path / "mixed")
    about = json.loads((mixed / "rank" / "ranker.json").read_text())
    (mixed / "rank" / "ranker.json").write_text(json.dumps(about | {"encoder": "another"}))
    with pytest.raises(UserError, match="rank was fitted with another song encoder"):
        Model(mixed)
    (mixed / "rank" / "ranker.json").write_text(json.dumps(about))
    (mixed / "rank" / "model.txt").write_text("damaged")
    with pytest.raises(UserError, match=r"model\.txt: cannot be read"):
        Model(mixed)


def test_a_service_without_lightgbm_says_so_at_its_start(service_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['lightgbm'] = None\n")
    command = [sys.executable, "-m", "serving", f"model={service_folder}", f"store={tmp_path}/store", "port=0"]
    done = subprocess.run(
        command, cwd=ROOT, env={"PATH": "", "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.strip().endswith("the ranker needs LightGBM: pip install -e '.[rank]'")


@pytest.fixture
def folder(service_folder: Path, tmp_path: Path) -> Path:
    """A service folder that may be replaced."""
    return shutil.copytree(service_folder, tmp_path / "service")


@pytest.fixture
def engine(folder: Path, tmp_path: Path) -> Iterator[Engine]:
    with closing(Engine(folder, tmp_path / "store", 4)) as opened:
        yield opened


def test_ranked_answers_while_models_are_swapped(
    engine: Engine, folder: Path, without: Path, service_folder: Path
) -> None:
    """Readers hold one state for an answer: each list is whole, and of a model that has a ranker."""
    accept(engine, "mine", "Rain on the roof", genres=["folk"])
    model = engine.state.model
    known, wrong, answered, ended = model.song_ids[0], [], [0, 0], threading.Event()

    def ask(who: int) -> None:
        while not ended.is_set():
            state = engine.state
            number = state.number("mine")
            try:
                assert number is not None
                if state.model.has_ranker:
                    found = shown.audience(state, number, "rank", BUDGET, False, 0.0)
                    assert len(found.users) == BUDGET and all(user.named_by for user in found.users)
                    answered[who] += 1
            except Exception as error:
                wrong.append(error)

    readers = [threading.Thread(target=ask, args=(who,)) for who in range(2)]
    for reader in readers:
        reader.start()
    for turn, by in enumerate((without, service_folder)):
        for user in model.user_ids[10 * turn : 10 * turn + 10]:
            engine.accept_plays([Play(user, known, completed=True), Play(user, "mine", favourited=True)], None, "")
        replace(folder, by)
        assert engine.reload() and engine.state.model.has_ranker == (by is service_folder)
    ended.set()
    for reader in readers:
        reader.join()
    assert not wrong and min(answered) > 0
    assert engine.state.model.plays is not None and engine.state.model.plays.size == 20, "replayed for the new model"


def test_after_a_kill_the_lists_are_the_same(service_folder: Path, tmp_path: Path) -> None:
    store, asked = tmp_path / "store", "/songs/mine/audience?mode=rank&budget=9"
    with serving(service_folder, store, token=TOKEN) as live, live.client() as client:
        assert client.get("/model").json()["ranker"] and "rank" in client.get("/model").json()["modes"]
        made = client.post("/songs?mode=rank&budget=9", data={"title": "Mine", "genres": "folk", "song_id": "mine"})
        assert made.status_code == 201 and len(made.json()["audience"]["users"]) == 9
        users = [one["user_id"] for one in client.get("/users?limit=100").json()["users"]]
        plays = [{"user_id": user, "song_id": "s00001", "completed": True} for user in users]  # without a time
        assert client.post("/plays", json={"plays": plays}).json()["accepted"] == len(users)
        before = client.get(asked).json()
        assert before != made.json()["audience"]
        live.process.kill()
        live.process.wait()
    with serving(service_folder, store, token=TOKEN) as live:
        assert live.get(asked).json() == before


def test_without_a_ranker_the_mode_is_refused(without: Path, tmp_path: Path) -> None:
    with serving(without, tmp_path / "store", token=TOKEN) as live, live.client() as client:
        song = client.get("/songs").json()["songs"][0]["song_id"]
        answer = client.get(f"/songs/{song}/audience?mode=rank")
        assert answer.status_code == 409
        assert answer.json() == {"detail": "this model has no ranker: make the service folder with rank=RUN"}
        assert client.post("/songs?mode=rank", data={"title": "Mine"}).status_code == 409
        assert client.get("/model").json()["accepted_songs"] == 0 and client.get("/model").json()["ranker"] is None
        assert client.get(f"/songs/{song}/audience?mode=ranking").status_code == 422
