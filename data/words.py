"""Lyrics as encoders read them, without what is form and no word; and the version marks of titles.

Lyrics come plain, with time stamps (LRC, with stamps of words too) or as subtitles (SRT, WebVTT, SBV), and name who
wrote and played them. All forms of one text give one text: stamps, heads such as `[by:…]` and credits are left out. A
title's version mark, such as "(Live)", is a field of its own, and stays in the text too: without it songs' neighbours
are worse (docs/results/playlists.md).
"""

from __future__ import annotations

import polars as pl

READING = 2  # raised when texts come to be read otherwise: vectors of another reading are not taken along
CHUNK = 10_000  # lyrics whose lines are held at a time

# hours:minutes:seconds.hundredths, minutes:seconds.hundredths, or milliseconds,duration
CLOCK = r"[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}[.,][0-9]{1,3}|[0-9]{1,3}:[0-9]{1,2}(?:[.:,][0-9]{1,3})?"
TIME = rf"(?:{CLOCK}|[0-9]+,[0-9]+)"
STAMP = rf"\[{TIME}(?:\s*(?:-->|[-–—~])\s*(?:{CLOCK}))?\]"  # or from one time to another
STAMPS = rf"^\s*(?:{STAMP}\s*)+"  # a line that is sung twice has two
WORD_STAMP = rf"(?:<{TIME}>|<[0-9]+,[0-9]+,[0-9]+>|\([0-9]+,[0-9]+,[0-9]+\))"
# Subtitles: "from --> to", maybe with settings, or in SBV "from,to", above the words, below a number or a name; always
# to the millisecond, which no line of a poem is. And what is between them.
MOMENT = r"(?:[0-9]{1,3}:)?[0-9]{1,2}:[0-9]{2}[.,][0-9]{1,3}"
CUE = rf"^\s*{MOMENT}(?:\s*-->\s*{MOMENT}(?:\s+\w+:\S+)*|,{MOMENT})\s*$"
VTT, NO_CUE = r"^\s*WEBVTT\b", r"^\s*(?:WEBVTT|NOTE|STYLE|REGION)\b"
ENTITIES = {"&lt;": "<", "&gt;": ">", "&nbsp;": " ", "&amp;": "&"}
TAG = r"(?i)</?(?:[ibuscv]|font|ruby|rt|lang)\b[^>]*>|\{\\[^}]*\}|[♩♪♫♬]"  # within the words of subtitles
HEAD = (
    r"(?i)^\s*\[(?:ti|ar|al|au|by|re|ve|offset|length|la|id|hash|sign|qq|total|tool|kana|lr|lang|language|encoding|#)"
    r"\s*:[^\]]*\]\s*$"
    r'|^\s*\{"t":.*\}\s*$'  # heads of NetEase: credits as JSON
)

# Who did what. A line with one of these before a colon is a credit, if names follow it (SUNG), and it stands at the
# head or the tail of a text (EDGE) or among others (RUN).
ROLES_CJK = (
    "作词|作詞|填词|填詞|作曲|谱曲|譜曲|词曲|詞曲|编曲|編曲|编写|編寫|改编|改編|原曲|原唱|翻唱|演唱|歌手|专辑|專輯|"
    "制作|製作|监制|監製|监棚|录音|錄音|录制|錄製|混音|混缩|母带|母帶|后期|後期|和声|和聲|合声|合聲|和音|合音|配唱|"
    "女声|男声|吉他|贝斯|貝斯|鼓|打击乐|打擊樂|弦乐|弦樂|管乐|管樂|钢琴|鋼琴|键盘|鍵盤|提琴|中提|大提|手风琴|口琴|"
    "二胡|古筝|琵琶|笛|箫|三弦|铃鼓|乐器|演奏|乐团|樂團|合成器|出品|发行|發行|统筹|統籌|企划|企劃|策划|总监|總監|"
    "导演|導演|工程师|助理|编辑|版权|版權|设计|封面|海报|文案|推广|营销|宣传|授权|作者|ボーカル|ギター|ベース|"
    "ドラム|작사|작곡|편곡|노래"
)
ROLES = (
    r"\b(?:"
    r"by|OP|SP|OA|OC|OT|ISRC|UPC|music|lyrics?|lyricists?|words|composers?|composed|songwriters?|writers?|written|"
    r"arrang\w*|arrag\w*|produc\w*|production|programm?(?:ing|er)?s?|mix(?:ed|ing)?|master(?:ed|ing)?|"
    r"record(?:ed|ing|ings)|engineer(?:ed|s)?|studios?|publish\w*|copyright|label|guitars?|bass|drums?|percussions?|"
    r"piano|keyboards?|synth\w*|sythesizers?|strings?|violins?|violas?|cellos?|harmonica|saxophone|trumpet|horns?|"
    r"flute|orchestra|conductor|musicians?|vocals?|vocalists?|singers?|backing|background|backgound|chorus by|"
    r"harmony|hormony|midi|a&r|letra|m[uú]sica|paroles|musique|musik|testo|слова|музыка|текст"
    r")\b"
)
EDGE = 3  # lines of other text at most between a credit and the beginning or the end
RUN = 3  # credits at least that stand together elsewhere
ALONE = "词|詞|曲|唱|编|編|词/曲|曲/词|詞/曲|曲/詞"  # of one syllable: only where nothing else is before the colon
DONE = "lyrics?|words|music|written|composed|arranged|produced|mixed|mastered|recorded|performed|published"
# What no role has, but a sentence before a colon.
SAID = r"(?i)\b(?:i|you|we|he|she|it|they|my|me|your|is|are|was|the)\b|[我你她们們的了着是说道]|(?:^|[^吉其])他"
BEFORE_COLON = r"^\s*([^:：]{1,60})[:：]"
ROLE = rf"(?i){ROLES}|{ROLES_CJK}|^(?:{ALONE})\s*$"
CJK = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]"
QUALIFIERS = (
    r"and|of|at|for|in|with|all|other|co|lead|rhythm|solo|grand|double|electric|acoustic|electronic|additional|section|"
    r"assistant|executive|ordinat\w+|instruments?|organ|tracking|y|e|et|und|и|\d+\w*"
)
ROLE_ALONE = rf"{CJK}|^(?:\p{{Lu}}[\w'’]*\b|(?i:{ROLES}|\b(?:{QUALIFIERS})\b)|[\W\d])+$"
# A sentence, after a role in Latin letters: names have none of these words, and begin with capital letters.
SUNG = (
    r"\b(?:i|you|we|he|she|it|they|me|him|her|us|them|my|your|his|its|our|their|is|are|was|were|am|be|been|does|did|"
    r"don['’]t|can|can['’]t|will|won['’]t|would|a|an|the|this|that|these|those|not|so|to|when|if|what)\b"
    r"|\bI(?:['’]\w|\s+\p{Ll})"
)
SUNG_LINE = r"^\s*\p{Lu}.*?(?:[:：]|\bby\b)\s*\p{Ll}+(?:[\s,]+\p{Ll}[\p{Ll}'’]*){2,}\W*$"  # without capitals
CREDIT = (  # without a colon
    rf"(?i)^\s*(?:(?:作词|作詞|作曲|编曲|編曲|填词|填詞|词曲|詞曲)\s+\S|(?:{DONE})(?:\s*(?:,|&|/|and)\s*(?:{DONE}))*\s+by\s+\S"
    r"|纯音乐[,，]?\s*请(?:您)?欣赏\s*$|此歌曲为没有填词的纯音乐|暂无歌词\s*$)"
)
FORM = rf"(?mi){STAMPS}|[:：]|^\s*(?:{DONE})\b.* by |^\s*[作编編填词詞]|纯音乐|暂无歌词"  # some such line may be in it

# Kinds of version, each by what says so within brackets or after a dash.
VERSIONS = {
    "live": (
        r"\blive(?:\s*(?:at|in|from|on|@|[|/,-]|ver|mix|session|acoustic|\d|版)|\W*$)|现场|現場|ライブ|"
        r"ライヴ|라이브|\bconcert\b"
    ),
    "remaster": r"\bremaster(?:ed)?\b",
    "remix": (
        r"\b(?:remix|mashup|bootleg|rework|phonk)|\bdj|\b(?:club|dance|house|dub|vip) (?:mix|version|ver)\b|"
        r"舞曲版|鼓版|混音版"
    ),
    "edit": r"\bedit(?:ed|ion)?\b|\b(?:radio|single|album|clean|explicit)(?: (?:mix|version|ver))|剪辑|片段",
    "extended": r"\bextended\b|\bfull (?:version|ver|length)\b|完整版|加长",
    "instrumental": (
        r"\binstrumental\b|\binst\b|\bkaraoke\b|\boff vocal\b|\bbacking track\b|伴奏|纯音乐|純音樂|演奏|"
        r"カラオケ|インスト"
    ),
    "acoustic": r"\b(?:acoustic|unplugged|stripped)\b|不插电|不插電|弹唱|清唱|アコースティック",
    "piano": r"\bpiano\b|钢琴|鋼琴|ピアノ",
    "cover": r"\bcovered\b|\bcover\s+(?:by|of|ver|version)\b|\bcover\W*$|翻唱|翻自|カバー|커버",
    "demo": r"\bdemo\b|小样",
    "speed": r"\b(?:sped|speed(?:ed)?) up\b|\bslowed\b|\bnightcore\b|\d\s*[x×]\b|[x×]\s*\d|加速|减速|降调|升调|慢速",
    "featuring": r"\b(?:feat|ft|featuring)\b",
}
OTHER, ANY = "version", r"\b(?:version|ver|reprise|bonus track)\b|\b(?:mix|take)(?:\s*#?\d+)?\W*$|版"
MARK = "|".join([*VERSIONS.values(), ANY]).replace(r"\W*$", r"\W*(?:[)）\]】]|$)")  # or within its brackets
MARKS = (
    rf"(?i)\s*[(（\[【][^()（）\[\]【】]*?(?:{MARK})[^()（）\[\]【】]*[)）\]】]?"
    rf"|\s+[-–—]\s+[^-–—()（）\[\]【】]*?(?:{MARK})[^-–—]*$|\s+(?:feat|ft)\.?\s+.*$|\s+featuring\s+.*$"
)


def plain(songs: pl.DataFrame) -> pl.DataFrame:
    """A table with its lyrics, where it has any, as they are read."""
    if "lyrics" not in songs.columns or songs["lyrics"].dtype.is_nested():
        return songs
    return songs.with_columns(plain_lyrics(songs["lyrics"].cast(pl.String)).alias("lyrics"))


def plain_lyrics(lyrics: pl.Series) -> pl.Series:
    """Lyrics without time stamps, heads and credits, in the order in which they are sung; others are as they were."""
    return read_lyrics(lyrics)["lyrics"]


def read_lyrics(lyrics: pl.Series) -> pl.DataFrame:
    """`lyrics` as `plain_lyrics`, and whether they were `timed` and `credited`."""
    plain = pl.DataFrame({"lyrics": lyrics.cast(pl.String).str.strip_prefix("\ufeff").str.strip_chars()})
    plain = plain.with_row_index("song").with_columns(timed=pl.lit(False), credited=pl.lit(False))
    formed = plain.filter(pl.col("lyrics").str.contains(FORM))
    parts = [_without_form(part.select("song", "lyrics")) for part in formed.iter_slices(CHUNK)]
    return plain.update(pl.concat([plain.clear(), *parts]), on="song").drop("song") if parts else plain.drop("song")


def _without_form(lyrics: pl.DataFrame) -> pl.DataFrame:
    """Lyrics (song, lyrics) line by line: a line stands as often as it has stamps, by time; one without after the one
    before it."""
    lines = lyrics.with_columns(pl.col("lyrics").str.replace_all("\r\n?", "\n").str.split("\n")).explode("lyrics")
    lines = _without_stamps(_with_cues(lines))
    lines = lines.with_columns(credit=_credits(lines), timed=pl.col("stamp").is_not_null().any().over("song"))
    lines = lines.with_columns(pl.col("credit").any().over("song").alias("credited"))
    lines = lines.filter(~pl.col("credit") & ~pl.col("lyrics").str.contains(HEAD)).explode("stamp")
    lines = lines.with_columns(time=_seconds(pl.col("stamp")).forward_fill().over("song").fill_null(-1.0))
    sung = lines.filter(~pl.col("cue")).sort("song", "time", maintain_order=True).group_by("song", maintain_order=True)
    text = sung.agg(pl.col("lyrics").str.join("\n").str.strip_chars(), pl.col("timed").any(), pl.col("credited").any())
    nothing = lyrics.select("song").join(text, on="song", how="anti")  # of credits alone
    return pl.concat([text, nothing.with_columns(lyrics=pl.lit(""), timed=pl.lit(True), credited=pl.lit(True))])


def _with_cues(lines: pl.DataFrame) -> pl.DataFrame:
    """Lines of subtitles without what is no word: the time of a `cue` is a stamp above its words; other texts as they
    were.

    Subtitles begin with a cue, its number or name, or WEBVTT. Blank lines part them into blocks. Right above a cue
    stands its number or, first in the block, its name.
    """
    line, cue, block = pl.col("lyrics"), pl.col("cue"), pl.col("block")
    lines = lines.with_columns(cue=line.str.contains(CUE), blank=~line.str.contains(r"\S"))
    begun = lines.filter(~pl.col("blank")).group_by("song").head(2).group_by("song", maintain_order=True)
    begins = begun.agg(begins=cue.any() | line.first().str.contains(VTT), vtt=line.first().str.contains(VTT))
    lines = lines.join(begins, on="song", how="left", maintain_order="left")
    cued = pl.col("begins").fill_null(False) & cue.any().over("song")
    texts, lines = lines.filter(~cued).with_columns(cue=pl.lit(False)), lines.filter(cued)
    part = (pl.col("blank") | (pl.col("song") != pl.col("song").shift(1))).fill_null(True)
    lines = lines.with_columns(block=part.cum_sum()).filter(~pl.col("blank"))
    below = (cue & (block == block.shift(1))).shift(-1, fill_value=False)
    number = line.str.contains(r"^\s*[0-9]+\s*$") & below
    lines = lines.with_columns(
        # Where the first cue has a number, all have one; else those are words.
        above=below & ((block != block.shift(1)).fill_null(True) | (number & number.first().over("song"))),
        between=(line.first().str.contains(NO_CUE) & ~cue.any()).over("block") & pl.col("vtt"),
    )
    lines = lines.filter(~(pl.col("above") | pl.col("between") | (line.str.contains(VTT) & pl.col("vtt"))))
    words = line.str.replace_all(TAG, "").str.strip_chars()
    words = pl.when(pl.col("vtt")).then(words.str.replace_many(ENTITIES)).otherwise(words)
    time = "[" + line.str.extract(rf"^\s*({MOMENT})") + "]"
    lines = lines.select("song", pl.when(cue).then(time).otherwise(words).alias("lyrics"), "cue")
    return pl.concat([texts.select(lines.columns), lines]).sort("song", maintain_order=True)


def _without_stamps(lines: pl.DataFrame) -> pl.DataFrame:
    """Lines without time stamps, and the stamps of the line itself (`stamp`, a list; null without any).

    A text whose words have stamps in square brackets has one for each line.
    """
    stamps = pl.col("lyrics").str.extract(rf"({STAMPS})").str.extract_all(rf"\[{TIME}")
    stamps = stamps.list.eval(pl.element().str.strip_prefix("["))
    words = pl.col("lyrics").str.replace(STAMPS, "")
    in_ms = pl.col("lyrics").str.contains(r"^\s*\[[0-9]+,")  # QRC: word(start,duration)
    words = pl.when(in_ms).then(words.str.replace_all(r"\(([0-9]+,[0-9]+)\)", "<$1>")).otherwise(words)
    by_word = (stamps.is_not_null() & words.str.contains(STAMP)).any().over("song")
    word_stamp = rf"(?:{WORD_STAMP}|{STAMP})"
    bare = words.str.replace_all(rf"(?: +{word_stamp})+ +", " ").str.replace_all(word_stamp, "").str.strip_chars()
    return lines.with_columns(
        stamp=pl.when(by_word).then(stamps.list.head(1)).otherwise(stamps.list.unique(maintain_order=True)),
        lyrics=pl.when(stamps.is_null()).then(words.str.replace_all(WORD_STAMP, "")).otherwise(bare),
    )


def _credits(lines: pl.DataFrame) -> pl.Series:
    """Which lines (song, lyrics) are credits: a role and names, among the first or last lines of their text."""
    line, before = pl.col("lyrics"), pl.col("lyrics").str.extract(BEFORE_COLON)
    roles = lines.select(before.unique().drop_nulls()).to_series()
    alone = roles.str.contains(ROLE) & roles.str.contains(ROLE_ALONE) & ~roles.str.contains(SAID)
    says = before.is_in(roles.filter(alone).implode()) | line.str.contains(CREDIT)
    lines = lines.with_row_index("line")
    found = lines.filter(says.fill_null(False)).with_columns(role=line.str.extract(r"^(.*?(?:[:：]|\b[Bb][Yy]\b))"))
    is_sung = line.str.strip_prefix(pl.col("role")).str.contains(SUNG) | line.str.contains(SUNG_LINE)
    named = found.filter(pl.col("role").str.contains(CJK).fill_null(True) | ~is_sung)
    text = lines.filter(line.str.contains(r"\S") & ~line.str.contains(HEAD))
    text = text.with_columns(credit=pl.col("line").is_in(named["line"].implode())).with_columns(
        run=pl.struct("song", "credit").rle_id(), head=(~pl.col("credit")).cum_sum().over("song"),
        tail=(~pl.col("credit")).cum_sum(reverse=True).over("song"),
    )  # fmt: skip
    placed = (pl.col("head") <= EDGE) | (pl.col("tail") <= EDGE) | (pl.len().over("run") >= RUN)
    return lines["line"].is_in(text.filter(pl.col("credit") & placed)["line"].implode())


def _seconds(stamp: pl.Expr) -> pl.Expr:
    """Time of a stamp without its brackets."""
    hours = stamp.str.extract(r"^(\d+):\d+:\d+[.,]").cast(pl.Float64).fill_null(0)
    stamp = stamp.str.replace(r"^\d+:(\d+:\d+[.,])", "$1")
    number, sign, rest, part = (stamp.str.extract(r"^(\d+)([:,])(\d+)(?:[.:,](\d+))?", n) for n in (1, 2, 3, 4))
    seconds = pl.concat_str(rest, pl.lit("."), part.fill_null("0")).cast(pl.Float64)
    whole = number.cast(pl.Float64)
    return pl.when(sign == ",").then(whole / 1000).otherwise(3600 * hours + 60 * whole + seconds)


def notes(songs: pl.DataFrame) -> list[str]:
    """What was left out of lyrics and titles, for the manifest and the screen."""
    lyrics, made = read_lyrics(songs["lyrics"]), []
    timed, credited = lyrics["timed"].sum(), lyrics["credited"].sum()
    if timed or credited:
        of = songs["lyrics"].count()
        made.append(
            f"songs: of {of} lyrics, {timed} have time stamps and {credited} lines of credits: the text that is read "
            "is without them"
        )
    if marked := versions(songs).count():
        made.append(f"songs: {marked} titles have a version mark: it is the field version too")
    return made


def plain_titles(titles: pl.Series) -> pl.Series:
    """Titles without version marks; one that is nothing but a mark is as it was."""
    bare = titles.str.replace_all(MARKS, "").str.strip_chars()
    return bare.zip_with(bare.str.len_chars() > 0, titles)


def versions(songs: pl.DataFrame) -> pl.Series:
    """Kinds of version that the marks of titles name, in the order of VERSIONS; null where there is no mark."""
    marks = pl.DataFrame({"mark": songs["title"].cast(pl.String).str.extract_all(MARKS)}).with_row_index("song")
    each = marks.explode("mark").drop_nulls().with_columns(pl.col("mark").str.strip_chars(" \u3000-–—()（）[]【】"))
    kinds = [pl.when(pl.col("mark").str.contains(f"(?i){says}")).then(pl.lit(kind)) for kind, says in VERSIONS.items()]
    named = pl.concat_list(kinds).list.drop_nulls()
    kind = pl.when(named.list.len() > 0).then(named).otherwise(pl.lit([OTHER]))
    found = each.select("song", version=kind).explode("version").unique(maintain_order=True)
    found = found.sort(pl.col("version").cast(pl.Enum([*VERSIONS, OTHER]))).group_by("song").agg("version")
    return marks.join(found, on="song", how="left", maintain_order="left")["version"]
