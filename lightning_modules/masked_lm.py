"""Masked language modelling of a small BERT as a LightningModule: transformers' own model, our optimiser.

Shapes: N blocks, L tokens, A of them asked for, W width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch.nn.functional as F
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

from lightning_modules.optim import adamw


class MaskedLMModule(L.LightningModule):
    """BERT (Devlin et al., arXiv 1810.04805) that names hidden tokens; batches are those of `MaskedLMDataModule`."""

    def __init__(
        self, vocab_size: int, max_tokens: int, width: int, layers: int, heads: int, dropout: float, **optim: float
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        config = BertConfig(
            vocab_size=vocab_size,
            max_position_embeddings=max_tokens,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
        self.model: Any = BertForMaskedLM(config)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of the hidden tokens."""
        logits_AV, labels_A = self._asked(batch)
        loss = F.cross_entropy(logits_AV, labels_A, reduction="sum") / max(1, len(labels_A))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["labels"]))
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """`val/accuracy`: share of the hidden tokens that are named right, over all batches and ranks."""
        logits_AV, labels_A = self._asked(batch)
        right = (logits_AV.argmax(dim=-1) == labels_A).float().sum() / max(1, len(labels_A))
        self.log("val/accuracy", right, batch_size=max(1, len(labels_A)), sync_dist=True, prog_bar=True)

    def _asked(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits of the tokens that are asked for, (A, V), and what they are, (A,): no others go through the head."""
        asked_NL = batch["labels"] >= 0
        hidden_NLW = self.model.bert(batch["input_ids"], batch["attention_mask"]).last_hidden_state
        return self.model.cls(hidden_NLW[asked_NL]), batch["labels"][asked_NL]

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine decay."""
        return adamw(self, {})
