"""The pictures show what they are given: values, names, the fields' edges, genres and kinds."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import TABLEAU_COLORS, to_hex

from callbacks.index_recall import SAMPLE, evenly
from callbacks.pictures import GENRES, NAMED, heat_map, song_map


def alike(n: int) -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((n, 4))
    return np.square(np.corrcoef(vectors))


def test_the_heat_map_has_the_matrix_its_names_and_a_line_between_fields() -> None:
    matrix, names, field_of = alike(5), ["a[0:2]", "a[2:4]", "b", "c[0:2]", "c[2:4]"], [0, 0, 1, 2, 2]
    axes = heat_map(matrix, names, field_of).axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), matrix)
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [one.get_text() for one in labels] == names
    lines = {float(line.get_ydata()[0]) for line in axes.lines if line.get_ydata()[0] == line.get_ydata()[1]}
    assert lines == {1.5, 2.5}
    said = {tuple(map(int, text.get_position())): float(text.get_text()) for text in axes.texts}
    assert said == {(column, row): pytest.approx(matrix[row, column], abs=0.051) for row, column in np.ndindex(5, 5)}


def test_of_many_features_each_field_is_named_once() -> None:
    n = NAMED + 4
    field_of = [0] * (n - 1) + [1]
    axes = heat_map(alike(n), [f"wide[{at}]" for at in range(n - 1)] + ["language"], field_of).axes[0]
    assert [one.get_text() for one in axes.get_yticklabels()] == ["wide[0]", "language"]
    assert list(axes.get_yticks()) == [0, n - 1] and not axes.texts


def test_the_map_has_every_song_in_the_colour_of_its_genre() -> None:
    rng = np.random.default_rng(0)
    genre = np.array(["rock"] * 9 + ["jazz"] * 7 + [""] * 3)
    kind = np.array(["known"] * 12 + ["new"] * 7)
    xy = rng.standard_normal((19, 2))
    figure = song_map(xy, genre, kind)
    shown = [one for one in figure.axes[0].collections if len(one.get_offsets())]
    assert len(shown) == 2
    colour = dict(zip(["rock", "jazz"], TABLEAU_COLORS.values(), strict=False)) | {"": to_hex("lightgrey")}
    for points, name in zip(shown, ("known", "new"), strict=True):
        np.testing.assert_array_equal(points.get_offsets(), xy[kind == name])
        assert [to_hex(one) for one in points.get_facecolors()] == [colour[one] for one in genre[kind == name]]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["known", "new", "rock", "jazz", "other or no genre"]


def test_rare_genres_share_a_colour() -> None:
    genre = np.array([f"g{at:02d}" for at in range(GENRES + 2) for _ in range(GENRES + 2 - at)])
    figure = song_map(np.zeros((len(genre), 2)), genre, np.full(len(genre), "new"))
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "other or no genre"
    assert len(figure.legends[0].get_texts()) == 1 + GENRES + 1


@pytest.mark.parametrize("n", [0, 1, SAMPLE, SAMPLE + 1, 7 * SAMPLE + 3])
def test_a_sample_is_spread_over_all(n: int) -> None:
    ids, vectors = evenly(np.arange(n), np.arange(n)[:, None] * 2.0)
    assert len(ids) == len(vectors) <= SAMPLE and len(ids) >= min(n, SAMPLE // 2)
    assert (vectors[:, 0] == 2 * ids).all()
    assert not n or (ids[0] == 0 and ids[-1] >= n - 1 - (n // SAMPLE + 1))
