"""Figures and pictures of an evaluation that never was, for the tests of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from evaluation.report.page import write_report

POOLS = {"all new songs": 240, "cold_test": 120}
HOSTILE = "<script>alert(1)</script>\"'&"
BASELINES = {"random": 21, "most active users": 64, "content kNN": 311, "CB2CF (λ=0)": 402}
OURS = {"I2I2U": 603, "I2I2U, gated": 577, "U2I, no boundary": 350, "U2I boundary": 333}
SPACES = ("content, no genre", "CB2CF (λ=0)", "FirstPlay")
METHODS = BASELINES | {f"FirstPlay {name}": found for name, found in OURS.items()}
BEST, FIRST = "CB2CF (λ=0)", "FirstPlay I2I2U"
PARTS = {"their contrastive part": (FIRST, BEST), "gate on I2I2U": (f"{FIRST}, gated", FIRST)}
BUCKETS = [
    ("held-out listeners of the song", "rare: 1 to 4", 3),
    ("held-out listeners of the song", "popular: 11 to 97", 9),
    ("first genre of the song", "genre 1", -7),
    ("first genre of the song", "other or no genre", 0),
]


def method_row(name: str, found: int) -> dict[str, Any]:
    row: dict[str, Any] = {"method": name}
    for budget in (10, 50, 100):
        recall = found * budget / 100_000
        row |= {f"target_users_found@{budget}": found * budget // 50, f"reached@{budget}": budget * 120}
        row |= {f"recall@{budget}": recall, f"recall@{budget}_ci95": [recall * 0.9, recall * 1.1]}
        row[f"ndcg@{budget}"] = recall / 2
    row["by_listeners"] = [
        {"bucket": bucket, "songs": 40, "listeners": span, "recall": found / 1000 / (i + 1)}
        for i, (bucket, span) in enumerate({"rare": [1, 4], "middle": [4, 11], "popular": [11, 97]}.items())
    ]
    return row


def outcome(name: str, favourite: float | None) -> dict[str, Any]:
    rates: dict[str, Any] = {"favourite_rate": favourite, "favourite_rate_ci95": None}
    if favourite is not None:
        rates["favourite_rate_ci95"] = [favourite * 0.9, favourite * 1.2]
    return {"method": name, "outcomes": 2345, **rates, "completion_rate": 0.4567, "completion_rate_ci95": [0.41, 0.49]}


def less(method: str, other: str, spread: int = 60) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method, "less": other}
    for budget in (10, 50, 100):
        more = (METHODS[method] - METHODS[other]) * budget // 50
        row |= {f"found@{budget}": more, f"found@{budget}_ci95": [more - spread + 0.025, more + spread - 0.025]}
        row |= {f"recall@{budget}": more / 2000}
        row |= {f"recall@{budget}_ci95": [(more - spread) / 2000, (more + spread) / 2000]}
    return row


def bucket(by: str, name: str, n: int) -> dict[str, Any]:
    figures = {"recall": 0.2 + n / 1000, "baseline_recall": 0.2, "difference": n / 1000}
    ends = [n / 1000 - 0.004, n / 1000 + 0.004]
    return {"by": by, "bucket": name, "songs": 10 + n, "listeners": 1000 + n, **figures, "difference_ci95": ends}


def part(name: str, method: str, other: str, favourite: float | None) -> dict[str, Any]:
    ends = None if favourite is None else [favourite - 0.011, favourite + 0.009]
    rates = {"favourite_rate": favourite, "favourite_rate_ci95": ends}
    rates |= {"completion_rate": 0.02, "completion_rate_ci95": [-0.0123, 0.0345]}
    return {"part": name, "method": method, "less": other, **rates}


def retrieval(pool: str, direction: str, size: int) -> dict[str, Any]:
    recalls = {"recall@1": 0.0417, "recall@5": 0.1678, "recall@10": 0.2871, "chance_recall@10": 10 / size}
    recalls["median_rank"] = 31.5
    within = {"recall@1_within_genre": 0.1833, "chance_recall@1_within_genre": 0.0714}
    return {"pool": pool, "direction": direction, "pool_size": size, **recalls, **within}


def metrics() -> dict[str, Any]:
    reached = [outcome(name, 0.06 + n / 10_000) for name, n in METHODS.items()]
    return {
        "catalogue": {"songs": 2000, "songs_cold_test": 120, "users": 3000, "training_plays": 81234},
        **{"split": "cold_test", "new_songs": 120, "new_songs_with_a_listener": 117},
        "audience": [method_row(name, found) for name, found in METHODS.items()],
        "best_baseline": {"method": BEST, "budget": 50, "held_out_listeners": 2311},
        "differences": [less(name, BEST) for name in METHODS if name != BEST],
        "parts": [{"part": name, **less(*pair)} for name, pair in PARTS.items()],
        "buckets": {
            **{"method": FIRST, "baseline": BEST, "budget": 100},
            "rows": [bucket(*one) for one in BUCKETS],
        },
        "overlap": [
            {"method": "FirstPlay CAT", "other": other} | {f"overlap@{b}": share + b / 1000 for b in (10, 50, 100)}
            for other, share in (("FirstPlay taste", 0.21), (FIRST, 0.43))
        ],
        "outcomes": {
            "source": "truth",
            "rows": [outcome("everybody", 0.0501), *reached],
            "parts": [part(name, *pair, -0.0026) for name, pair in PARTS.items()],
        },
        "retrieval": [
            retrieval(pool, way, size) for pool, size in POOLS.items() for way in ("text→audio", "audio→text")
        ],
        "genres": [
            {"space": "most frequent genre", "knn_genre_accuracy": 0.1417},
            {"space": "raw content", "knn_genre_accuracy": 0.6583, "genre_nmi": 0.3187, "chance_genre_nmi": 0.0512},
            {"space": "FirstPlay", "knn_genre_accuracy": 0.7249, "genre_nmi": 0.5471, "chance_genre_nmi": 0.0613},
        ],
        "boundary": {
            **{"share_of_pairs_above_the_boundary": 0.2345, "share_of_users_with_no_new_song": 0.0678},
            "share_of_new_songs_by_taste": {"rare songs": 0.3111, "middle": 0.2222, "popular songs": 0.1777},
        },
        "reach": {
            way: [{"reached": x, "favourite_rate": 0.2 - x / 10, "completion_rate": 0.5 - x / 3} for x in places]
            for way, places in (("ungated", (0.1, 0.5, 1.0)), ("gated", (0.1, 0.4)))
        },
        "gate": {
            "source": "truth",
            "exposures": 2000,
            "margin": 0.0,
            "curve": [
                {"margin": 1.0 - 2 * n / 5, "passed": n / 5, "favourite_rate": 0.15 - n / 50, "completion_rate": 0.5}
                for n in range(5, 0, -1)
            ],
            "at_the_boundary": {"precision": 0.4444, "recall": 0.5555, "f1": 0.4938},
            "calibration_error_before": 0.1234,
            "calibration": {"slope": 0.5, "intercept": -0.25},
            "calibration_error": 0.0123,
        },
    }


def pictures() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    n, genres = 400, ["", "techno", "folk & blues", *(f"genre {i}" for i in range(13))]
    margin, share = np.histogram(rng.normal(-0.8, 1, 5000), 60), np.histogram(rng.beta(2, 6, 300), 20, (0, 1))
    return {
        "song_map": {
            "maps": {
                name: dict(zip("xy", rng.normal(size=(2, n)).tolist(), strict=True))
                | {"near": rng.integers(0, n, (n, 5)).tolist()}
                for name in SPACES
            },
            "new": np.sort(rng.random(n) < 0.2).tolist(),
            "genre": [genres[i] for i in rng.integers(0, len(genres), n)],
            "title": [f"Song {i}" if i % 7 else "" for i in range(n)],
        },
        "boundary": {
            **{"margin_count": margin[0].tolist(), "margin_edge": margin[1].tolist()},
            **{"open_count": share[0].tolist(), "open_edge": share[1].tolist(), "gate": 0.0},
        },
    }


def written(tmp_path: Path, metrics: dict[str, Any], pictures: dict[str, Any]) -> str:
    write_report(tmp_path / "report.html", metrics, pictures)
    return (tmp_path / "report.html").read_text(encoding="utf-8")
