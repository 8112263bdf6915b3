"""musicnn: a convolutional network for music tagging, with the weights of the package `musicnn`.

Pons & Serra, arXiv 1909.06654: timbral (vertical) and temporal (horizontal) filters, three layers over them, maximum
and mean over time. Trained by its authors on the Million Song Dataset's 50 most frequent Last.fm tags; ISC licence.

Shapes: N crops, P patches of three seconds, T frames, M mel bands, C channels, W = 200 the width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.log_mel import LogMel
from models.packaged import packaged

PACKAGE, CHECKPOINT = "musicnn", "MSD_musicnn/.data-00000-of-00001"
SHA256 = "8579734ee6388f799ed0def4bbd0d1fdcbeaf213ef2a9dc860917bd76a303de6"
RATE, MELS, WINDOW, HOP = 16000, 96, 512, 256
PATCH = 187  # frames of a training example
WIDTH = 200
TIMBRAL, TEMPORAL = ((38, 204), (67, 204)), ((128, 51), (64, 51), (32, 51))  # (bands or frames, filters)
MIDDLE = 64


class Musicnn(nn.Module):
    """Samples at 16 kHz → the mean of the penultimate layer over patches of three seconds, (N, W).

    Batch norms always use their running statistics. A crop shorter than a patch is repeated up to one, as in the
    authors' training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mel = LogMel(RATE, MELS, WINDOW, HOP, norm="slaney", mel_scale="slaney")  # librosa's filters
        channels = sum(filters for _, filters in TIMBRAL + TEMPORAL)
        deep = channels + 3 * MIDDLE
        self.convs = nn.ModuleList(
            [
                *(nn.Conv2d(1, filters, (7, bands)) for bands, filters in TIMBRAL),
                *(nn.Conv2d(1, filters, (frames, 1)) for frames, filters in TEMPORAL),
                *(nn.Conv2d(1, MIDDLE, (7, below)) for below in (channels, MIDDLE, MIDDLE)),
            ]
        )
        sizes = [1, *(filters for _, filters in TIMBRAL + TEMPORAL), *[MIDDLE] * 3, 2 * deep, WIDTH]
        self.norms = nn.ModuleList(nn.BatchNorm1d(size, eps=1e-3) for size in sizes)
        self.dense = nn.Linear(2 * deep, WIDTH)

    def train(self, mode: bool = True) -> Musicnn:
        """Stay in evaluation mode: through batch norm a song's vector would depend on its batch."""
        return super().train(False)

    def forward(self, wave_NL: Tensor, length_N: Tensor) -> Tensor:
        """Vectors (N, W) of N crops, of which the first `length_N` samples are real."""
        frames_N = 1 + length_N // HOP
        patches = torch.sym_max(1, (1 + wave_NL.shape[1] // HOP) // PATCH)
        x_NTM = self.log_mel(wave_NL)
        at_T = torch.arange(patches * PATCH, device=wave_NL.device)
        at_NT = at_T % frames_N.clamp(max=x_NTM.shape[1])[:, None]  # short crops repeat
        x_NTM = torch.gather(x_NTM, 1, at_NT[:, :, None].expand(-1, -1, MELS))
        chunk = 2 if wave_NL.device.type == "cpu" else 256  # feature maps of two patches fit a CPU's cache
        x_PTM = x_NTM.reshape(-1, PATCH, MELS)
        # an exported program cannot loop over a symbolic number of patches
        parts = [x_PTM] if torch.compiler.is_exporting() else x_PTM.split(chunk)
        vector_NPW = torch.cat([self.patches(part) for part in parts]).view(wave_NL.shape[0], patches, WIDTH)
        # Patches of repeated frames alone do not count, except the first.
        real_NP = torch.arange(patches, device=wave_NL.device) < (frames_N // PATCH).clamp(min=1)[:, None]
        return (vector_NPW * real_NP.unsqueeze(-1)).sum(dim=1) / real_NP.sum(dim=1, keepdim=True)

    def log_mel(self, wave_NL: Tensor) -> Tensor:
        """log10(1 + 10,000 mel), (N, T, M), as in the authors' front end."""
        return torch.log10(1 + 10000 * self.mel.power(wave_NL))

    def patches(self, x_NTM: Tensor) -> Tensor:
        """Penultimate layer, (N, W), of patches of `PATCH` frames."""
        x_N1TM = self.normed(0, x_NTM.unsqueeze(1))
        tall = F.pad(x_N1TM, (0, 0, 3, 3))
        filtered = []
        for layer in range(len(TIMBRAL) + len(TEMPORAL)):
            if layer < len(TIMBRAL):
                x = tall
            else:
                frames = TEMPORAL[layer - len(TIMBRAL)][0]
                x = F.pad(x_N1TM, (0, 0, (frames - 1) // 2, frames - 1 - (frames - 1) // 2))
            filtered.append(self.normed(layer + 1, F.relu(self.convs[layer](x))).amax(dim=3))
        x_NCT = torch.cat(filtered, dim=1)
        levels = [x_NCT]
        for layer in range(len(filtered), len(self.convs)):
            x_N1TC = F.pad(levels[-1].transpose(1, 2).unsqueeze(1), (0, 0, 3, 3))
            y_NCT = self.normed(layer + 1, F.relu(self.convs[layer](x_N1TC)).squeeze(3))
            levels.append(y_NCT if len(levels) == 1 else y_NCT + levels[-1])
        x_NCT = torch.cat(levels, dim=1)
        pooled = torch.stack([x_NCT.amax(dim=2), x_NCT.mean(dim=2)], dim=2).flatten(1)
        return self.normed(len(self.norms) - 1, F.relu(self.dense(self.normed(len(self.norms) - 2, pooled))))

    def normed(self, layer: int, x: Tensor) -> Tensor:
        """Batch norm over the second axis, with running statistics."""
        norm: Any = self.norms[layer]
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)


def load_musicnn() -> Musicnn:
    """Build the network with the weights of the package `musicnn`.

    Raises:
        ValueError: the package is not installed, or its weights are not the published ones.
    """
    data = packaged("audio model 'musicnn'", PACKAGE, "musicnn", CHECKPOINT, SHA256).read_bytes()
    model = Musicnn()
    with torch.no_grad():
        for name, start, target in stored(model):
            value = torch.from_numpy(np.frombuffer(data, "<f4", target.numel(), start).copy())
            if name.startswith("conv2d") and name.endswith("kernel"):  # (height, width, in, out)
                height, width = target.shape[2:]
                target.copy_(value.view(height, width, *target.shape[1::-1]).permute(3, 2, 0, 1))
            elif name == "dense/kernel":
                target.copy_(value.view(*target.shape[::-1]).T)
            else:
                target.copy_(value)
    return model.eval()


def stored(model: Musicnn) -> Iterator[tuple[str, int, Tensor]]:
    """Name in the checkpoint, first byte, and the tensor of the model that it is for.

    TensorFlow writes all variables one after another, float32, in the order of their names, each weight followed by the
    two moments of its optimiser.
    """
    targets: dict[str, Tensor] = {"dense/kernel": model.dense.weight, "dense/bias": model.dense.bias}
    for number, conv in enumerate(model.convs):
        targets |= {f"{numbered('conv2d', number)}/{name}": getattr(conv, of) for name, of in KERNEL.items()}
    for number, norm in enumerate(model.norms):
        names = NORM.items()
        targets |= {f"{numbered('batch_normalization', number)}/{name}": getattr(norm, of) for name, of in names}
    sizes = {name: target.numel() for name, target in targets.items()}
    moments = {f"{name}/{slot}": size for name, size in sizes.items() if "moving" not in name for slot in ADAM}
    output = {"dense_1/kernel": WIDTH * 50, "dense_1/bias": 50}  # the tags themselves are not used
    moments |= output | {f"{name}/{slot}": size for name, size in output.items() for slot in ADAM}
    start = 0
    for name, size in sorted((sizes | moments | {"beta1_power": 1, "beta2_power": 1}).items()):
        if name in targets:
            yield name, start, targets[name]
        start += 4 * size


KERNEL = {"kernel": "weight", "bias": "bias"}
NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
ADAM = ("Adam", "Adam_1")


def numbered(name: str, number: int) -> str:
    """TensorFlow's name of the n-th layer of a kind."""
    return f"{name}_{number}" if number else name
