"""I2I: behavioural similarity from pairs and histories, regularised by contrastive learning on views of a song.

Shapes: N pairs or songs, M negatives, S distinct songs, B users, F features, E field embedding, D song vector.
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.optim import adamw
from models.song_encoder import SongEncoder
from models.views import draw_augment, draw_groups, transform
from objectives.contrastive import info_nce
from objectives.gather import gather_rows, gather_with_grad
from objectives.ranking import bpr_loss, listening_loss, sampled_softmax_loss

OF_ENCODER = ("field_dim", "hidden", "dim", "dropout", "block", "normalise", "input_dropout")


class I2IModule(L.LightningModule):
    """loss = `pair_weight` · pairs + `listening_weight` · histories + `bcl_weight` · InfoNCE; CB2CF has no InfoNCE.

    A song asks as what its content says, f(x). A known song is found as f(x) + r, where its residual embedding r is
    what its listeners taught beyond content; songs without a training play have none (`residual_size=0`: no song has).
    `correlation` (G, G) of the features (fields, or with `cut_fields` their blocks), kept in the checkpoint, is rebuilt
    each epoch by `callbacks.correlation`. The options are those of `SongEncoder` and of `train.py i2i`.
    """

    def __init__(
        self,
        dense_dims: dict[str, int],
        vocab_sizes: dict[str, int],
        residual_size: int,
        residual_lr_scale: float = 5.0,
        **options: Any,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = SongEncoder(dense_dims, vocab_sizes, **{name: options[name] for name in OF_ENCODER})
        listening, pairs = options["listening_weight"] > 0, options["pair_weight"] > 0
        sparse = options.get("sparse_residual", False)  # which runs of earlier versions do not know
        self._ddp_params_and_buffers_to_ignore = ["residual.weight"] if sparse else []  # as `AdamWAndRows` asks for
        self.residual = nn.Embedding(residual_size, options["dim"], 0, sparse=sparse) if residual_size else None
        if self.residual is not None:
            nn.init.zeros_(self.residual.weight).requires_grad_(pairs or listening)
        self.logit_scale = nn.Parameter(torch.tensor(1 / options["listening_temperature"]).log())
        self.model.head.requires_grad_(options["bcl_weight"] > 0 and options["contrastive_head"])
        self.model.item_bias.requires_grad_(listening and options["item_bias"])
        self.logit_scale.requires_grad_(listening)  # DDP refuses a parameter that takes no part in the loss
        embedding, cut = self.model.embedding, options["cut_fields"]
        self.feature_names = embedding.names if cut else embedding.field_names
        feature_of = list(range(len(embedding.names))) if cut else embedding.field_of
        self.register_buffer("feature_of", torch.tensor(feature_of), persistent=False)
        self.register_buffer("correlation", torch.eye(len(self.feature_names)))

    def with_residual(self, vector_ND: Tensor, residual_N: Tensor) -> Tensor:
        """Song vectors: content vectors plus residual embeddings (code 0: none, the song has no training play)."""
        return self.model.finish(vector_ND if self.residual is None else vector_ND + self.residual(residual_N))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The parts of the loss that have a weight; f encodes a song once for all of them, and its views."""
        p, parts = self.hparams, {}
        e_SFE, shown_SF = self.model.embedding(batch["fields"])
        whole = slice(None if p["bcl_weight"] > 0 and p["views"] == "anchored" else batch["whole"])
        content = self.model.content(e_SFE[whole], self.model.hide_fields(shown_SF[whole], p["field_dropout"]))
        if p["pair_weight"] > 0:
            parts[p["pair_loss"]] = (p["pair_weight"], self.pair_loss(batch, content[0]))
        if p["listening_weight"] > 0:
            parts["listening"] = (p["listening_weight"], self.listening_loss(batch["listening"], *content))
        if p["bcl_weight"] > 0:
            contrastive, left_out = self.contrastive_loss(batch, e_SFE, shown_SF, content[0])
            parts["info_nce"] = (p["bcl_weight"], contrastive)
            self.log("train/songs_left_out", left_out)
        loss = torch.stack([weight * part for weight, part in parts.values()]).sum()
        self.log_dict({"train/loss": loss} | {f"train/{key}": part for key, (_, part) in parts.items()}, prog_bar=True)
        return loss

    def pair_loss(self, batch: dict[str, Any], vector_SD: Tensor) -> Tensor:
        """Rank every pair against the negatives of the batch: the song asks by content, the others are known songs."""
        n, negatives = len(batch["source"]), batch["negatives"]
        found = self.with_residual(vector_SD[batch["at"]], batch["residual"])
        query_ND, positive_ND, negative_MD = found.split([n, n, len(negatives)])
        if self.hparams["in_batch"]:
            negatives, negative_MD = torch.cat([batch["target"], negatives]), torch.cat([positive_ND, negative_MD])
        keep_NM = (negatives != batch["source"][:, None]) & (negatives != batch["target"][:, None])
        scored = (query_ND, positive_ND, negative_MD, keep_NM)
        if self.hparams["pair_loss"] == "bpr":
            return bpr_loss(*scored)
        return sampled_softmax_loss(*scored, batch["log_q"][:n], batch["log_q"][-len(negatives) :])

    def listening_loss(self, batch: dict[str, Any], vector_SD: Tensor, bias_S: Tensor) -> Tensor:
        """Half of each user's songs must find the other half by its content, and these songs the user."""
        vector_SD, bias_S = vector_SD[batch["at"]], bias_S[batch["at"]]
        user_BD = F.normalize(batch["heard"] @ self.with_residual(vector_SD, batch["residual"]), dim=1)
        logits_BS = self.logit_scale.clamp(max=4.6).exp() * user_BD @ F.normalize(vector_SD, dim=1).T - batch["log_q"]
        logits_BS = logits_BS + bias_S if self.hparams["item_bias"] else logits_BS
        return listening_loss(logits_BS, batch["wanted"], batch["heard"] > 0, self.hparams["users_weight"])

    def contrastive_loss(
        self, batch: dict[str, Any], e_SFE: Tensor, shown_SF: Tensor, vector_SD: Tensor
    ) -> tuple[Tensor, Tensor]:
        """InfoNCE between views of each drawn song, over all ranks, and the share of songs left out (a view is empty).

        "complementary": the view of one group against the view of the other; "anchored": each against f(the song),
        of `vector_SD`. Songs of one id are no negatives of each other. All ranks have the same seed of the groups.
        """
        p, generator = self.hparams, torch.Generator().manual_seed(batch["views_seed"])
        e_NFE, present_NF, of_F = e_SFE[batch["drawn"]], shown_SF[batch["drawn"]], self.get_buffer("feature_of")
        vectors, shown = [], []
        for group_G in draw_groups(self.get_buffer("correlation"), p["grouping"], generator):
            how = draw_augment(p["augment"], generator), of_F, p["mask_rate"], p["noise_std"]
            view_NFE, shown_NF = transform(e_NFE, present_NF & group_G[of_F], *how)
            vectors.append(self.projected(self.model.encode(view_NFE, shown_NF)))
            shown.append(gather_rows(shown_NF.any(dim=1)))
        pairs = [(vectors[0], vectors[1], shown[0] & shown[1])]
        if p["views"] == "anchored":
            whole_ND = self.projected(self.model.finish(vector_SD[batch["drawn"]]))
            pairs = [(vector_ND, whole_ND, shown_N) for vector_ND, shown_N in zip(vectors, shown, strict=True)]
        ids_N = gather_rows(batch["drawn_ids"])
        losses = [info_nce(a, b, p["temperature"], ids_N, valid_N) for a, b, valid_N in pairs]
        left_out = 1 - torch.stack([valid_N for _, _, valid_N in pairs]).float().mean()
        return torch.stack(losses).mean(), left_out

    def projected(self, vector_ND: Tensor) -> Tensor:
        """g(f(view)) of the songs of all ranks, with gradient; f(view) without `contrastive_head`."""
        return gather_with_grad(self.model.head(vector_ND) if self.hparams["contrastive_head"] else vector_ND)

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Song vectors for the recall callbacks (loader 0: index, loader 1: queries)."""
        return self.predict_step(batch, batch_idx)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Song vectors, and item biases."""
        vector_ND, bias_N = self.model.content(*self.model.embedding(batch["fields"]))
        return {"id": batch["id"], "vector": self.with_residual(vector_ND, batch["residual"]), "item_bias": bias_N}

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine decay; a residual embedding sees few of the steps and takes larger ones."""
        return adamw(self, {"residual.": self.hparams["residual_lr_scale"]}, undecayed=("residual.",))

    def on_fit_start(self) -> None:
        """Fix the centre and scale of the dense inputs, measured on warm songs (a resumed run already has them)."""
        if self.trainer.ckpt_path is None:
            for name, (mean, scale) in self.trainer.datamodule.dense_statistics().items():  # type: ignore[attr-defined]
                self.model.embedding.standardise(name, mean, scale)
