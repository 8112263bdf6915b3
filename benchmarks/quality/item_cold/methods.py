"""The methods of the benchmark by name, and groups of them."""

from __future__ import annotations

from typing import Any

from benchmarks.quality.item_cold import artists, boundary, characters, closed_form, elsa, encoders, neural, ranked
from configs.errors import UserError

FIXED: dict[str, tuple[Any, dict[str, Any]]] = {  # the settings of the reference protocol, and defaults
    "random": (closed_form.random_scores, {}),
    "most active users": (closed_form.most_active, {}),
    "content kNN (20)": (closed_form.content_knn, {"k": 20}),
    "content kNN (100)": (closed_form.content_knn, {"k": 100}),
    "ridge(10) to users": (closed_form.ridge_to_users, {"ridge": 10.0}),
    "ridge(1) to EASE rows": (closed_form.ridge_to_ease, {"ridge": 1.0, "ease": 100.0, "of": "rows"}),
    "ridge(10) to EASE rows": (closed_form.ridge_to_ease, {"ridge": 10.0, "ease": 100.0, "of": "rows"}),
    "ridge(1) to EASE columns": (closed_form.ridge_to_ease, {"ridge": 1.0, "ease": 100.0, "of": "columns"}),
    "DropoutNet": (neural.dropoutnet, {}),
    "CLCRec": (neural.clcrec, {}),
    "SEMCo": (neural.semco, {}),
    "artist mean vector": (artists.artist_mean, {}),
    "artist listeners": (artists.artist_listeners, {}),
    "character kNN (100)": (characters.character_knn, {"k": 100}),
    "ELSA on content": (elsa.elsa, {}),
}
TUNED: dict[str, Any] = {
    "content kNN, tuned": closed_form.content_knn,
    "ridge to users, tuned": closed_form.ridge_to_users,
    "ridge to EASE, tuned": closed_form.ridge_to_ease,
    "DropoutNet, tuned": neural.dropoutnet,
    "CLCRec, tuned": neural.clcrec,
    "SEMCo, tuned": neural.semco,
    "artist mean vector, tuned": artists.artist_mean,
    "artist listeners, tuned": artists.artist_listeners,
    "character kNN, tuned": characters.character_knn,
    "ELSA on content, tuned": elsa.elsa,
}
GRIDS = closed_form.GRIDS | neural.GRIDS | artists.GRIDS | characters.GRIDS | elsa.GRIDS
BY_ARTIST = (artists.artist_mean, artists.artist_listeners)
BY_CHARACTERS = (characters.character_knn,)
UNWEIGHTED = (closed_form.random_scores, neural.dropoutnet, neural.clcrec, neural.semco, *BY_CHARACTERS)
SEEDED = (closed_form.random_scores, neural.dropoutnet, neural.clcrec, neural.semco, artists.artist_mean, elsa.elsa)
KEEPING = (closed_form.content_knn, closed_form.ridge_to_ease, *BY_ARTIST, *BY_CHARACTERS, elsa.elsa)
BASELINES: dict[str, Any] = {name: one[0] for name, one in FIXED.items()} | TUNED
CLOSED = [name for name, of in BASELINES.items() if of not in SEEDED]
OURS = ("firstplay", "CB2CF", "article", "article, CB2CF")
GROUPS = {
    "baselines": tuple(BASELINES),
    "ours": OURS,
    "u2i": ("firstplay", boundary.BOUNDARY, boundary.UNION),
    "ablation": (*encoders.VARIANTS, *encoders.AUDIENCES),
    "contrastive": (*encoders.SETTINGS,),
    "article parts": encoders.PARTS,
    "ranked": ("firstplay", ranked.RANKED),
    "ranked u2i": ("firstplay", boundary.BOUNDARY, boundary.UNION, ranked.RANKED, ranked.RANKED_BOUNDARY),
    "untuned": encoders.UNTUNED,
    "missing": ("firstplay", "field dropout", *encoders.WITHOUT),
}


def methods(names: list[str]) -> list[str]:
    """Groups opened, each method once, in order.

    Raises:
        UserError: no such method.
    """
    known = {method for group in GROUPS.values() for method in group}
    opened = [one for name in names for one in GROUPS.get(name, (name,))]
    unknown = [name for name in opened if name not in known]
    if unknown or not opened:
        raise UserError(f"methods={unknown}: choose from {', '.join([*GROUPS, *sorted(known)])}")
    return list(dict.fromkeys(opened))
