"""The three parts of the song encoder's loss, as functions of the I2IModule and a batch.

Shapes: N pairs or songs, M negatives, S distinct songs, B users, F features, E field embedding, D song vector.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.song_encoder import Fields
from models.views import draw_group, hide_fields, make_view
from objectives.contrastive import info_nce
from objectives.gather import gather_rows, gather_with_grad
from objectives.ranking import bpr_loss, listening_loss, sampled_softmax_loss


def pairs(module: Any, batch: dict[str, Any]) -> Tensor:
    """Every pair against the negatives of the batch: the song asks by content, the others are known songs."""
    n, negatives = len(batch["source"]), batch["negatives"]
    vectors_SD, _ = content(module, batch["pairs"])
    found = module.model.finish(module.remember(vectors_SD[batch["at"]], batch["memory"]))
    query_ND, positive_ND, negative_MD = found.split([n, n, len(negatives)])
    if module.hparams["in_batch"]:
        negatives, negative_MD = torch.cat([batch["target"], negatives]), torch.cat([positive_ND, negative_MD])
    keep_NM = (negatives != batch["source"][:, None]) & (negatives != batch["target"][:, None])
    if module.hparams["pair_loss"] == "bpr":
        return bpr_loss(query_ND, positive_ND, negative_MD, keep_NM)
    log_q_N, log_q_M = batch["log_q"][:n], batch["log_q"][-len(negatives) :]
    return sampled_softmax_loss(query_ND, positive_ND, negative_MD, keep_NM, log_q_N, log_q_M)


def listening(module: Any, batch: dict[str, Any]) -> Tensor:
    """Half of each user's songs must find the other half by its content, and these songs him."""
    vector_SD, appeal_S = content(module, batch["fields"])
    user_BD = F.normalize(batch["heard"] @ module.model.finish(module.remember(vector_SD, batch["memory"])), dim=1)
    logits_BS = module.logit_scale.clamp(max=4.6).exp() * user_BD @ F.normalize(vector_SD, dim=1).T - batch["log_q"]
    if module.hparams["appeal"]:
        logits_BS = logits_BS + appeal_S
    return listening_loss(logits_BS, batch["wanted"], batch["heard"] > 0, module.hparams["users_weight"])


def content(module: Any, fields: Fields) -> tuple[Tensor, Tensor]:
    """Vectors of free length and appeal of songs, some of whose fields are hidden if `field_dropout` is on."""
    e_NFE, shown_NF = module.model.embedding(fields)
    if module.hparams["field_dropout"] > 0:
        shown_NF = hide_fields(shown_NF, module.field_of, module.hparams["field_dropout"])
    return module.model.content(e_NFE, shown_NF)


def contrastive(module: Any, fields: Fields, ids_N: Tensor) -> tuple[Tensor, Tensor]:
    """InfoNCE between two views of each song, over all ranks, and the share of songs left out (a view is empty)."""
    p = module.hparams
    e_NFE, present_NF = module.model.embedding(fields)
    views, shown = [], []
    for group_F in draw_group(module.correlation, p["grouping"]):
        view_NFE, shown_NF = make_view(e_NFE, present_NF, group_F, p["augment"], p["mask_rate"], p["noise_std"])
        vector_ND = module.model.encode(view_NFE, shown_NF)
        views.append(gather_with_grad(module.model.head(vector_ND) if p["contrastive_head"] else vector_ND))
        shown.append(shown_NF.any(dim=1))
    valid_N = gather_rows(shown[0] & shown[1])
    loss = info_nce(views[0], views[1], p["temperature"], gather_rows(ids_N), valid_N)
    return loss, 1 - valid_N.float().mean()
