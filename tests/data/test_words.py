"""Titles and lyrics in the forms in which they come: the words of all forms are the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from data import words
from data.derived_fields import derived_values
from data.text import song_texts, unknown_share
from data.words import plain_lyrics, plain_titles, read_lyrics, versions

VERSE = ["I walk the line", "over and over: again", "", "看人们聚散无常", "男：爱不爱都难", "10:30的飞机快要到了"]
CREDITS = ["作词 : 孙仪+陶喆", " 作曲：翁清溪", "编曲 李琪", "制作人 Producer：蔡健雅", "OP: EMI (Taiwan) Ltd.", 
           "詞：林夕", "Lyrics by Paul Simon", "Written and produced by X", "Bass: Ah Kean", "Recorded at：The Garden",
           "弦乐编写：李琪", "木吉他：郭一凡", "其他乐器：王力宏", "작사: 김이나",
           "Letra y música: Ana Gómez", "Musique : A. Petit",
           "Text und Musik: Hans Meier", "Testo: A. Rossi", "Слова: Иван Иванов"]  # fmt: skip
HEADS = ["[ti:Title]", "[ar: Someone]", "[by:user]", "[offset:-500]", "[length: 03:12]"]


def lrc(lines: list[str], stamp: Callable[[int], str], word: str = "") -> str:
    """Lines with a stamp each, three seconds apart, and with stamps of their words, such as "<{}>" before each."""
    timed = [" ".join(word.format(stamp(3 * n)) + part for part in line.split(" ")) for n, line in enumerate(lines)]
    return "\n".join(f"[{stamp(3 * n)}]{line}" for n, line in enumerate(timed))


STAMPS: dict[str, Callable[[int], str]] = {
    "hundredths": lambda seconds: f"{seconds // 60:02d}:{seconds % 60:02d}.50",
    "thousandths": lambda seconds: f"{seconds // 60:02d}:{seconds % 60:02d}.500",
    "seconds": lambda seconds: f"{seconds // 60}:{seconds % 60:02d}",
    "colons": lambda seconds: f"{seconds // 60:02d}:{seconds % 60:02d}:50",
    "milliseconds": lambda seconds: f"{1000 * seconds},2000",
    "hours": lambda seconds: f"01:{seconds // 60:02d}:{seconds % 60:02d}.50",
    "commas": lambda seconds: f"{seconds // 60:02d}:{seconds % 60:02d},50",
}


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("stamp", STAMPS)
def test_every_form_of_lyrics_has_the_same_words(stamp: str, ends: str) -> None:
    """Plain, with credits, with time stamps of lines and of words, with heads, in one table."""
    sung = "\n".join(VERSE)
    credit = '{"t":0,"c":[{"tx":"作词: "},{"tx":"A. Writer"}]}'
    song = lrc([*CREDITS, *VERSE], STAMPS[stamp])
    forms = [
        sung, "\n".join([*CREDITS, *VERSE]), "\n".join([*VERSE, "", *CREDITS]), song, "\n".join([*HEADS, song]),
        *(lrc(VERSE, STAMPS[stamp], word) for word in ("<{}>", "<{}> ", "[{}]", "[{}] ")),
        lrc(VERSE[::-1], lambda at: STAMPS[stamp](60 - at)), f"\ufeff{lrc(VERSE, STAMPS[stamp])}",
        f"{credit}\n{lrc(VERSE, STAMPS[stamp])}",
    ]  # fmt: skip
    found = read_lyrics(pl.Series([form.replace("\n", ends) for form in forms]))
    assert set(found["lyrics"].str.replace_all("\r\n", "\n")) == {sung}
    assert found["timed"].to_list() == [False] * 3 + [True] * 9
    assert found["credited"].to_list() == [False, True, True, True, True] + [False] * 7


def test_lines_that_are_sung_twice_come_in_the_order_of_time() -> None:
    text = "[00:10.00][01:10.00]chorus\n[00:20.00]verse\n[1:40.5]last\nof two lines\n[00:01]first\n[61:00]much later"
    assert plain_lyrics(pl.Series([text]))[0] == "first\nchorus\nverse\nchorus\nlast\nof two lines\nmuch later"


def test_stamps_of_words_in_square_brackets_and_of_hours() -> None:
    words = "[00:01.20]我[00:01.50]爱 [00:02.00]you[00:02.50]\n[00:05.00] [00:05.00] in [00:05.20] time [00:05.90]"
    assert plain_lyrics(pl.Series([words]))[0] == "我爱 you\nin time"
    hours = "[01:00:05.00]last\n[00:59:59.99]third\n[59:00.00]second\n[00:00:07.10]first"
    assert plain_lyrics(pl.Series(["[00:01][00:02]one\n[00:03]and [00:04]two"]))[0] == "one\nand two"
    assert plain_lyrics(pl.Series([hours]))[0] == "first\nsecond\nthird\nlast"
    assert plain_lyrics(pl.Series(["[00:01]x\nmeet me at [3:15]"]))[0] == "x\nmeet me at [3:15]"


@pytest.mark.parametrize("line", ["我(500,300)爱 (800,300)you(1100,250)", "我(500,300)爱(800,300) you(1100,250)"])
def test_stamps_of_words_behind_them(line: str) -> None:
    """As QQ Music writes them (QRC), in milliseconds."""
    assert (
        plain_lyrics(pl.Series([f"[2000,900]in (2000,300)time(2300,600)\n[500,900]{line}"]))[0] == "我爱 you\nin time"
    )
    assert plain_lyrics(pl.Series(["[00:01.00]we count (1,2) and (3,4)"]))[0] == "we count (1,2) and (3,4)"


@pytest.mark.parametrize("stamp", ["hundredths", "hours", "seconds"])
@pytest.mark.parametrize("dash", ["-", " - ", "–", " --> ", "~"])
def test_stamps_from_one_time_to_another(stamp: str, dash: str) -> None:
    """The words are once in the text, by the first of the times."""
    of = STAMPS[stamp]
    lines = [f"[{of(at)}{dash}{of(at + 9)}] {line}" for at, line in ((40, "last"), (3, "first"), (20, "second"))]
    assert plain_lyrics(pl.Series(["\n".join(lines)]))[0] == "first\nsecond\nlast"


SUBTITLES = {
    "srt": "1\n00:00:01,000 --> 00:00:03,000\n{0}\n\n2\n00:00:04,500 --> 00:00:06,000\n{1}\n{2}\n\n3\n"
           "00:00:07,000 --> 00:00:08,000\n\n4\n00:00:10,000 --> 00:00:12,000\n{3}\n",
    "srt with forms": "1\n00:00:01,000 --> 00:00:03,000 X1:40 X2:600\n{{\\an8}}<i>{0}</i>\n\n2\n"
                      '00:00:04,500 --> 00:00:06,000\n<font color="#fff">{1}</font>\n♪ {2} ♪\n\n\n\n'
                      "4\n00:00:10,000 --> 00:00:12,000\n{3}",
    "srt without blank lines": "1\n0:00:01,000 --> 0:00:03,000\n{0}\n2\n0:00:04,500 --> 0:00:06,000\n{1}\n{2}\n3\n"
                               "0:00:10,000 --> 0:00:12,000\n{3}",
    "srt without numbers": "00:00:01,000 --> 00:00:03,000\n{0}\n00:00:04,500 --> 00:00:06,000\n{1}\n{2}\n"
                           "00:00:10,000 --> 00:00:12,000\n{3}",
    "srt out of order": "2\n00:00:04,500 --> 00:00:06,000\n{1}\n{2}\n\n3\n00:00:10,000 --> 00:00:12,000\n{3}\n\n1\n"
                        "00:00:01,000 --> 00:00:03,000\n{0}",
    "webvtt": "WEBVTT - a song\nKind: captions\nLanguage: en\n\nSTYLE\n::cue {{ color: red }}\n\nNOTE made by\nus\n\n"
              "verse one\n00:01.000 --> 00:03.000 align:start position:0%\n<v Ann>{0}</v>\n\n"
              "00:04.500 --> 00:06.000\n<c.red>{1}</c>\n{2}\n\n01:00:10.000 --> 01:00:12.000\n{3}\n",
    "webvtt, bare": "WEBVTT\n00:01.000 --> 00:03.000\n{0}\n\n00:04.500 --> 00:06.000\n{1}\n{2}\n\n"
                    "00:10.000 --> 00:12.000\n\n{3}\n",
    "sbv": "0:00:01.000,0:00:03.000\n{0}\n\n0:00:04.500,0:00:06.000\n{1}\n{2}\n\n0:00:10.000,0:00:12.000\n{3}\n",
}  # fmt: skip


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("form", SUBTITLES)
def test_subtitles_are_their_words(form: str, ends: str) -> None:
    """Numbers, names, times, notes and marks of the screen are none; a number that is sung is."""
    for sung in (["I walk the line", "99", "看人们聚散无常", "over: and over"], ["1", "2", "3", "4"]):
        text = SUBTITLES[form].format(*sung).replace("\n", ends)
        found = read_lyrics(pl.Series([text, f"\ufeff{text}", "\n".join(sung)]))
        assert found["lyrics"].to_list() == ["\n".join(sung)] * 3 and found["timed"].to_list() == [True, True, False]


def test_words_of_subtitles_with_times_of_their_own_and_credits() -> None:
    text = "WEBVTT\n\n00:01.000 --> 00:03.000\nWritten by: Ann Lee\n\n00:04.000 --> 00:06.000\nI<00:04.500><c> walk</c>"
    found = read_lyrics(pl.Series([text, "1\n00:00:01,000 --> 00:00:03,000\n", "from <i>here</i> --> 1:30 there"]))
    assert found["lyrics"].to_list() == ["I walk", "", "from <i>here</i> --> 1:30 there"]
    assert found["timed"].to_list() == [True, True, False] and found["credited"].to_list() == [True, True, False]


SUNG = [
    "Music: it fills the air",
    "Written by the river I wait",
    "Drums: I hear them calling",
    "Words by a stranger: gone",
    "Bass: boom boom boom",
    "the sweet music all night long: la",
    "Strings: they pull me down",
    "Written by hand on paper",
    "Música: suena en el aire",
]
NAMED = [
    "Music: Ah Kean",
    "Written by Rivers Cuomo",
    "Drums: deadmau5",
    "Words by Will Young and So Ying",
    "guitar solo: Slash",
    "Mixed at: The Garden by Frank Lee",
    "Production Co-ordinator: Ann",
    "作曲 : just you and i",
]


@pytest.mark.parametrize("place", ["head", "middle", "tail"])
def test_sung_lines_with_the_name_of_a_role_are_no_credits(place: str) -> None:
    """Names are no sentence, and stand at the head or the tail of a text, or several together."""
    verse = [f"line {n} of a song" for n in range(12)]
    for line in SUNG:
        text = "\n".join({"head": [line, *verse], "middle": [*verse, line, *verse], "tail": [*verse, line]}[place])
        assert plain_lyrics(pl.Series([text]))[0] == text, line
    for line in NAMED:
        lines = {"head": [line, *verse], "middle": [*verse, line, *verse], "tail": [*verse, line]}[place]
        wanted = lines if place == "middle" else verse
        assert plain_lyrics(pl.Series(["\n".join(lines)]))[0].split("\n") == wanted, line
    together = [*verse, *NAMED[:3], *verse]
    assert plain_lyrics(pl.Series(["\n".join(together)]))[0].split("\n") == verse + verse


def test_credits_of_real_lyrics_are_found(real: Callable[[str], Path]) -> None:
    """Of the 821 lyrics of netease_playlists; `docs/data.md` says how many."""
    found = read_lyrics(pl.read_parquet(real("netease_playlists") / "songs.parquet")["lyrics"].drop_nulls())
    assert (found.height, found["credited"].sum()) == (821, 674)


def test_words_that_are_no_form_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where lyrics are read a few at a time; nothing is nothing."""
    monkeypatch.setattr(words, "CHUNK", 2)
    stay = ["by the river\nI wrote you a song: la", "[Chorus]\nla", "drum and bass all night", "the music by my window",
            "at 3:15 (2,3) <3", "Alice: hello\nBob: good-bye", "作词的人走了",
            "I hear the drums: boom\n他打着鼓：咚", None, ""]  # fmt: skip
    assert plain_lyrics(pl.Series(stay)).to_list() == stay
    mixed = [text for text in stay for _ in range(2)]
    mixed[1::2] = ["作词 : x\n" + (text or "") for text in stay]
    assert plain_lyrics(pl.Series(mixed))[::2].to_list() == stay
    assert plain_lyrics(pl.Series(mixed))[1::2].to_list() == [text or "" for text in stay]
    nothing = ["作曲 : x\n作词 : y", "纯音乐，请欣赏", "[00:00.00]作曲 : x"]
    assert plain_lyrics(pl.Series(nothing)).to_list() == ["", "", ""]


TITLES = {
    "Hello": (None, "Hello"),
    "Live and Let Die": (None, "Live and Let Die"),
    "(I Can't Get No) Satisfaction": (None, "(I Can't Get No) Satisfaction"),
    "불장난（PLAYING WITH FIRE）": (None, "불장난（PLAYING WITH FIRE）"),
    "Anna - I Love You": (None, "Anna - I Love You"),
    "A (Live Forever)": (None, "A (Live Forever)"),
    "Country Roads (Take Me Home)": (None, "Country Roads (Take Me Home)"),
    "In Da Club (Mix It Up)": (None, "In Da Club (Mix It Up)"),
    "Shelter (Cover Me Up)": (None, "Shelter (Cover Me Up)"),
    "Hello (Live)": (["live"], "Hello"),
    "Hello - Live": (["live"], "Hello"),
    "Hello – Live": (["live"], "Hello"),
    "So What (Take 3)": (["version"], "So What"),
    "Hello (Adele Cover)": (["cover"], "Hello"),
    "你的爱情 (Live版)": (["live"], "你的爱情"),
    "Alive [Live at Wembley, 1985]": (["live"], "Alive"),
    "Come Together - Remastered 2009": (["remaster"], "Come Together"),
    "Come Together - 2019 Mix": (["version"], "Come Together"),
    "月亮惹的祸（DJ阿智 remix）": (["remix"], "月亮惹的祸"),
    "红豆 (伴奏)": (["instrumental"], "红豆"),
    "红豆【钢琴版】": (["piano"], "红豆"),
    "Done for Me (feat. Kehlani)": (["featuring"], "Done for Me"),
    "Done for Me feat. Kehlani": (["featuring"], "Done for Me"),
    "Hold On (feat. Cheat Codes) [Radio Edit]": (["edit", "featuring"], "Hold On"),
    "沉沦与遐想（0.8x）": (["speed"], "沉沦与遐想"),
    "Snooze (Acoustic": (["acoustic"], "Snooze"),
    "風 (翻自 周杰伦)": (["cover"], "風"),
    "Love Story (Taylor's Version)": (["version"], "Love Story"),
    "(Live)": (["live"], "(Live)"),
    "": (None, ""),
}


def test_marks_of_titles_are_a_field() -> None:
    titles = [*TITLES, None]
    songs = pl.DataFrame({"title": titles})
    assert plain_titles(songs["title"]).to_list() == [plain for _, plain in TITLES.values()] + [None]
    assert versions(songs).to_list() == [kinds for kinds, _ in TITLES.values()] + [None]
    assert derived_values(songs, "version").to_list() == versions(songs).to_list()
    assert versions(songs.clear()).dtype == versions(songs).dtype == pl.List(pl.String)


def test_the_text_of_a_song_has_its_mark_and_plain_lyrics() -> None:
    """Other columns, a list that is called so among them, are read as they are."""
    songs = pl.DataFrame({
        "title": ["Hello (Live)"], "lyrics": ["[00:01.00]作词 : x\n[00:02.00]la"], "genres": [["(Live)", "作词 : x"]],
    })  # fmt: skip
    assert song_texts(songs, ["title", "lyrics", "genres"]) == ["Hello (Live)\nla\n(Live), 作词 : x"]
    assert derived_values(songs, "script").to_list() == [["Latin"]]
    assert song_texts(songs.select(title=pl.col("genres")), ["title"]) == ["(Live), 作词 : x"]


def test_prepare_tells_what_is_left_out(
    write_dataset: Callable[..., Path], prepare: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_dataset(tmp_path / "source")
    songs = pl.read_parquet(source / "songs.parquet").with_row_index("n")
    lyrics = (
        pl.when(pl.col("n") < 5).then(pl.lit("[00:01]作词 : x\n[00:02]la")).when(pl.col("n") < 9).then(pl.lit("la"))
    )
    title = pl.format("Song {} {}", "n", pl.when(pl.col("n") % 6 == 0).then(pl.lit("(Live)")).otherwise(pl.lit("")))
    songs.with_columns(lyrics=lyrics, title=title).drop("n").write_parquet(source / "songs.parquet")
    made = prepare(source, tmp_path / "catalogue")
    shown = capsys.readouterr().out
    assert "songs: of 9 lyrics, 5 have time stamps and 5 lines of credits" in shown
    assert "songs: 10 titles have a version mark" in shown
    assert pl.read_parquet(made / "songs.parquet")["title"][0] == "Song 0 (Live)", "the catalogue shows it as it is"


@pytest.mark.parametrize(("texts", "share"), [(["我愛你"], 0.0), (["rain 我愛"], 1 / 3), (["rain rain 我愛"], 0.5)])
def test_unknown_words_and_characters_are_counted(
    texts: list[str], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a tokenizer that knows Han, and of whose other words one token is unknown, or many are not."""
    from models import text_encoder

    class Tokenizer:
        unk_token_id = 7

        def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
            return {"input_ids": [[7] if one == "rain" else [1, 2, 3, 4] for one in texts]}

    monkeypatch.setattr(text_encoder, "load_tokenizer", lambda _: Tokenizer())
    assert unknown_share(texts, "any") == pytest.approx(share)
    assert np.isclose(unknown_share([*texts, "1984!? ", ""], "any"), unknown_share([*texts, "known"], "any"))


NO_SUBTITLES = [
    "قال\n٣:١٦,٣:١٧\nنعم",
    "[००:０１.００]a\nb",
    "verse one\nverse two\n0:45 --> 1:10\nchorus\n\nverse three",
    "3:15 in the morning\nI wake\n4:20, 5:30\nno sleep\n10:30,11:45\nend",
    "me --> you\n12:30 --> 1:45 we waited\nyes",
    "one\ntwo\nthree\n00:00:01,000 --> 00:00:02,000\nfour",
]


@pytest.mark.parametrize("text", NO_SUBTITLES)
def test_words_that_have_times_in_them_are_no_subtitles(text: str) -> None:
    assert plain_lyrics(pl.Series([text])).to_list() == [text]


def test_only_the_number_or_the_name_above_a_cue_is_left_out() -> None:
    texts = [
        "1\n00:00:01,000 --> 00:00:02,000\nhello\n\nworld and\nmore words\n2\n00:00:03,000 --> 00:00:04,000\nbye",
        "1\n00:00:01,000 --> 00:00:02,000\nhello\n\n2\n00:00:03,000 --> 00:00:04,000\nNOTE to self",
        "WEBVTT\n\nNOTE x\n\nname\n00:01.000 --> 00:02.000 align:start\nYou &amp; <b>me</b>\n\n"
        "00:03.000 --> 00:04.000\nbye",
    ]
    found = plain_lyrics(pl.Series(texts)).to_list()
    assert found == ["hello\nworld and\nmore words\nbye", "hello\nNOTE to self", "You & me\nbye"]
