"""Text encoder: token ids → one pooled vector.

Shapes: N texts, W windows of a text, L tokens of a window, B BERT's width.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from models.packaged import KIND, NO_VOCABULARY, USE
from models.pretrained import Published, load_pretrained
from models.use_multilingual import SIZE, UseMultilingual, load_use, load_use_tokenizer


class TextEncoder(Published):
    """Any `AutoModel` with mean pooling over real tokens (Reimers & Gurevych, arXiv 1908.10084).

    `use-multilingual` pools them by its own head.
    """

    def load(self, model: str) -> Any:
        """Load the model without its pooler, which is unused: DDP stops at weights without a gradient."""
        self.bert: Any = load_use() if model == USE else load_pretrained("AutoModel", model, KIND)
        if getattr(self.bert, "pooler", None) is not None:
            self.bert.pooler = None
        return self.bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Mean of the last hidden states of real tokens, (N, B), from ids and mask (N, L) or (N, W, L).

        The windows of a text are encoded separately and pooled together; a text without tokens gives zeros.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            n, windows = input_ids.shape[0], math.prod(input_ids.shape[1:-1])
            ids_RL, mask_RL = input_ids.flatten(0, -2), attention_mask.flatten(0, -2)
            hidden_RLB = self.bert(input_ids=ids_RL, attention_mask=mask_RL).last_hidden_state
            weight_RL1 = mask_RL.unsqueeze(-1).to(hidden_RLB.dtype)
            total_RB = torch.where(weight_RL1 > 0, hidden_RLB, 0.0).sum(dim=1)
            total_NB: Tensor = total_RB.view(n, windows, -1).sum(dim=1)
            tokens_N1 = weight_RL1.view(n, -1).sum(dim=1, keepdim=True)
            if isinstance(self.bert, UseMultilingual):
                return self.bert.head(total_NB, tokens_N1)
            return total_NB / tokens_N1.clamp(min=1)


def load_tokenizer(model: str) -> Any:
    """Load the tokenizer of a text model.

    Raises:
        ValueError: it cannot be loaded, or has no vocabulary.
    """
    if model == USE:
        return load_use_tokenizer()
    tokenizer = load_pretrained("AutoTokenizer", model, KIND)
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # transformers makes one that knows nothing of a bare folder
        raise ValueError(NO_VOCABULARY.format(model))
    return tokenizer


@cache
def text_width(model: str) -> int:
    """Size of the pooled vector of a text model, from its configuration alone.

    Raises:
        ValueError: the configuration cannot be loaded.
    """
    return SIZE if model == USE else int(load_pretrained("AutoConfig", model, KIND).hidden_size)
