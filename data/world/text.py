"""Write titles, lyrics and tags of the demo world from templates with words of theme, mood, genre and energy.

Genre, mood and energy also show in the audio, the theme in the text only. A fifth of the words are drawn from all
themes, moods or genres (LEAK), and the genre shows in instruments only: text is informative, not conclusive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from data.world.latent import GENRES, MOODS, Songs

LEAK = 0.2
THEME_WORDS = {
    "love": (
        "kiss, heart, promise, hand, rose, ring",
        "hold, want, follow, keep, adore",
        "in your arms, by your side, under one roof",
        "心, 玫瑰, 誓言",
        "拥抱, 追随",
    ),
    "heartbreak": (
        "tear, goodbye, letter, scar, lie, door",
        "lose, leave, miss, forget, mourn",
        "in an empty bed, at the end of us, without you",
        "眼泪, 告别, 伤口",
        "离开, 忘记",
    ),
    "city": (
        "street, neon, train, crowd, window, tower",
        "wander, cross, chase, watch, hustle",
        "under the streetlights, on the late train, downtown",
        "街道, 霓虹, 地铁",
        "穿过, 游荡",
    ),
    "sea": (
        "wave, harbour, tide, sail, shore, salt",
        "drift, dive, sail, float, swim",
        "by the water, beyond the bay, on the open sea",
        "海浪, 港口, 潮水",
        "漂流, 航行",
    ),
    "road": (
        "highway, engine, mile, map, bridge, dust",
        "drive, ride, roam, travel, pass",
        "along the highway, past the border, at the wheel",
        "公路, 远方, 桥",
        "奔走, 经过",
    ),
    "home": (
        "kitchen, garden, mother, table, lamp, porch",
        "return, gather, rest, cook, stay",
        "at the old house, around the table, in the garden",
        "故乡, 厨房, 灯火",
        "回到, 守着",
    ),
    "revolt": (
        "wall, crown, banner, chain, flame, law",
        "break, fight, march, shout, burn",
        "at the barricade, against the crown, in the square",
        "火焰, 锁链, 旗帜",
        "打破, 呐喊",
    ),
    "party": (
        "bottle, floor, glitter, dress, dancer, weekend",
        "dance, jump, spin, celebrate, shine",
        "on the dance floor, at the bar, all weekend",
        "舞池, 酒杯, 周末",
        "跳舞, 闪耀",
    ),
    "memory": (
        "photograph, summer, school, name, diary, echo",
        "remember, recall, keep, trace, dream",
        "in an old photograph, years ago, back in school",
        "照片, 夏天, 名字",
        "想起, 收藏",
    ),
    "winter": (
        "snow, frost, coat, pine, breath, ice",
        "freeze, shiver, wait, fade, cover",
        "in the snow, through the frost, below the pines",
        "雪, 寒风, 松树",
        "等待, 覆盖",
    ),
}
MOOD_WORDS = {
    "joyful": ("happy, bright, golden, laughing, sunny", "joy, laughter, delight, sunshine", "快乐的, 明亮的", "欢笑"),
    "tender": ("gentle, soft, warm, careful, sweet", "tenderness, comfort, a whisper, care", "温柔的, 轻轻的", "温暖"),
    "melancholy": ("sad, lonely, grey, weary, blue", "sorrow, longing, loneliness, regret", "忧伤的, 孤独的", "思念"),
    "angry": ("furious, bitter, violent, raging, cruel", "rage, fury, hatred, thunder", "愤怒的, 苦涩的", "怒火"),
    "calm": ("quiet, still, peaceful, slow, silent", "peace, silence, stillness, rest", "安静的, 平和的", "宁静"),
    "dreamy": ("hazy, drifting, floating, distant, pale", "a dream, haze, moonlight, mist", "朦胧的, 遥远的", "梦"),
    "restless": (
        "nervous, sleepless, hurried, anxious, wired",
        "hunger, fever, worry, an itch",
        "不安的, 失眠的",
        "焦虑",
    ),
    "triumphant": (
        "proud, mighty, glorious, fearless, tall",
        "victory, glory, courage, pride",
        "骄傲的, 无畏的",
        "荣耀",
    ),
}
GENRE_WORDS = {
    "pop": ("radio, chorus, microphone, melody, spotlight", "电台, 旋律"),
    "rock": ("guitar, amplifier, garage, drummer, stage", "电吉他, 鼓手"),
    "metal": ("distortion, double kick, iron, scream, riff", "失真, 嘶吼"),
    "electronic": ("synth, bassline, laser, drop, machine", "合成器, 电音"),
    "hip-hop": ("rhyme, beat, sample, corner, flow", "节拍, 韵脚"),
    "jazz": ("saxophone, trumpet, brushes, club, swing", "萨克斯, 小号"),
    "classical": ("violin, orchestra, cello, concert hall, waltz", "小提琴, 乐团"),
    "folk": ("fiddle, banjo, village, harvest, acoustic strings", "木吉他, 村庄"),
    "ambient": ("drone, space, horizon, hum, stars", "星空, 回响"),
    "reggae": ("offbeat, island, one drop, sun, dub", "海岛, 阳光"),
    "latin": ("conga, salsa, plaza, trumpet, fiesta", "康加鼓, 广场"),
    "blues": ("harmonica, slide guitar, crossroads, whiskey, shuffle", "口琴, 威士忌"),
}
PACE_WORDS = {
    "slow": ("slowly, softly, barely, faintly", "慢慢地, 悄悄地"),
    "steady": ("steadily, again, together, tonight", "一起, 今夜"),
    "fast": ("faster, louder, racing, pounding", "飞快地, 大声地"),
}
TITLES = (
    "{adjective} {noun}", "The {noun} and the {noun}", "{feeling} {place}", "{verb} the {noun}", "{noun} of {feeling}",
    "{adjective} {instrument}", "{noun} {place}",
)  # fmt: skip
LINES = (
    "I {verb} the {adjective} {noun} {place}", "{pace} we {verb} {place} with {feeling}",
    "there is {feeling} in the {noun} and the {instrument} plays {pace}", "oh my {adjective} {noun}, {verb} me {pace}",
    "every {noun} {place} knows my {feeling}", "so {adjective}, so {adjective}, the {instrument} and the {noun}",
    "you {verb} and I {verb}, {pace}, {place}", "give me the {instrument}, give me {feeling}",
    "{adjective} is the {noun} that we {verb}", "hear the {instrument} {pace} {place}",
)  # fmt: skip
ZH_TITLES = ("{zh_adjective}{zh_noun}", "{zh_noun}与{zh_noun}", "{zh_verb}{zh_noun}", "{zh_feeling}的{zh_noun}")
ZH_LINES = (
    "我{zh_pace}{zh_verb}那{zh_adjective}{zh_noun}", "{zh_adjective}{zh_noun}里有{zh_feeling}",
    "听{zh_instrument}{zh_pace}响起", "你{zh_verb}，我{zh_verb}，{zh_feeling}不停",
    "给我{zh_instrument}，给我{zh_feeling}", "{zh_noun}啊{zh_noun}，{zh_pace}{zh_verb}",
)  # fmt: skip

SCENES = {
    "workout": (0.2, 0.9), "party": (0.8, 0.8), "driving": (0.2, 0.4), "commute": (-0.2, 0.2), "dinner": (0.5, -0.3),
    "study": (0.1, -0.6), "sleep": (0.1, -1.0), "rainy day": (-0.6, -0.5), "gaming": (-0.4, 0.8),
}  # fmt: skip


def _columns(lexicon: Mapping[str, Sequence[str]], *slots: str) -> dict[str, list[list[str]]]:
    return {slot: [row[i].split(", ") for row in lexicon.values()] for i, slot in enumerate(slots)}


WORDS = {
    "theme": _columns(THEME_WORDS, "noun", "verb", "place", "zh_noun", "zh_verb"),
    "mood": _columns(MOOD_WORDS, "adjective", "feeling", "zh_adjective", "zh_feeling"),
    "genre": _columns(GENRE_WORDS, "instrument", "zh_instrument"),
    "pace": _columns(PACE_WORDS, "pace", "zh_pace"),
}


def write_texts(songs: Songs, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Write a title and lyrics (about 40 to 90 English words) for each song; Chinese for songs of Chinese artists."""
    excitement_S = np.array(list(MOODS.values()))[songs.mood_S, 1] + 0.6 * songs.traits_ST[:, 0]
    pace_S = np.digitize(excitement_S + 0.3 * rng.normal(size=len(songs)), (-0.4, 0.5))
    second_S = np.where(songs.second_S >= 0, songs.second_S, songs.genre_S)
    titles, lyrics = [], []
    for song in range(len(songs)):
        chinese = bool(songs.chinese_S[song])
        own = {
            "theme": [int(songs.theme_S[song])],
            "mood": [int(songs.mood_S[song])],
            "genre": [int(songs.genre_S[song]), int(songs.genre_S[song]), int(second_S[song])],
            "pace": [int(pace_S[song])],
        }
        title_templates, lines = (ZH_TITLES, ZH_LINES) if chinese else (TITLES, LINES)
        first = _fill(_one(title_templates, rng), own, rng)
        titles.append(first if chinese else first[0].upper() + first[1:])
        lyrics.append(_lyric(lines, own, rng))
    return titles, lyrics


def write_tags(songs: Songs, rng: np.random.Generator) -> list[list[str]]:
    """Tag each song with a mood and one or two scenes; one mood in eight is drawn at random, as tagging noise."""
    moods, scenes = list(MOODS), list(SCENES)
    tagged_S = np.where(rng.random(len(songs)) < 0.125, rng.integers(len(moods), size=len(songs)), songs.mood_S)
    mood_S2 = np.array(list(MOODS.values()))[tagged_S]
    genre_S2 = np.array(list(GENRES.values()))[songs.genre_S]
    spot_S2 = (mood_S2 + genre_S2) / 2 + 0.15 * songs.traits_ST[:, :1] * np.array([0, 1])
    near_SC = -((spot_S2[:, None] - np.array(list(SCENES.values()))) ** 2).sum(-1)
    best_S2 = np.argsort(-(4 * near_SC + rng.gumbel(size=near_SC.shape)), axis=1)[:, :2]
    both_S = rng.random(len(songs)) < 0.5
    return [
        [moods[mood], scenes[best[0]], *([scenes[best[1]]] if both else [])]
        for mood, best, both in zip(tagged_S, best_S2, both_S, strict=True)
    ]


def _lyric(lines: Sequence[str], own: dict[str, list[int]], rng: np.random.Generator) -> str:
    """Write two verses, each followed by the same chorus."""
    verse = [_fill(_one(lines, rng), own, rng) for _ in range(int(rng.integers(4, 8)))]
    chorus = _fill(_one(lines, rng), own, rng)
    half = len(verse) // 2
    return "\n".join([*verse[:half], chorus, *verse[half:], chorus])


def _fill(template: str, own: dict[str, list[int]], rng: np.random.Generator) -> str:
    """Replace each `{slot}` by a word of the song's own class or, with probability LEAK, of a random class."""
    text = template
    for kind, slots in WORDS.items():
        for slot, classes in slots.items():
            while f"{{{slot}}}" in text:
                of = int(rng.integers(len(classes))) if rng.random() < LEAK else own[kind][rng.integers(len(own[kind]))]
                text = text.replace(f"{{{slot}}}", _one(classes[of], rng), 1)
    return text


def _one(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
