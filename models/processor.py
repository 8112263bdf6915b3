"""What the processor can do."""

from __future__ import annotations

from functools import cache

BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")  # of x86 and ARM


@cache
def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16; one that only converts it is slower by it."""
    import torch  # here: who asks may have no other need of it

    found = torch.cpu.get_capabilities()
    return torch.backends.mkldnn.is_available() and any(found.get(name) for name in BFLOAT16)
