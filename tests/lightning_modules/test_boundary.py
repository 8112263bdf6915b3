"""BoundaryModule: what it makes of the options of a run."""

from __future__ import annotations

import torch

from configs.training import BoundaryConfig
from lightning_modules.boundary import BoundaryModule
from tests.conftest import module_options


def test_a_run_of_an_earlier_version_has_the_users_that_it_had() -> None:
    """Its options do not name prior_plays: a user of few plays stays as far from one of none as in its training."""
    options = module_options(BoundaryConfig, field_dim=4, hidden=8, dim=4)
    assert options.pop("prior_plays") > 0
    torch.manual_seed(0)
    earlier = BoundaryModule({"content": 5}, {}, {}, 0, **options).eval()
    same, shrunk = (
        BoundaryModule({"content": 5}, {}, {}, 0, **options, prior_plays=plays).eval() for plays in (0.0, 1.0)
    )
    user = {
        "codes": torch.zeros(2, 0, dtype=torch.long),
        "numbers": torch.zeros(2, 0),
        "songs": {"content": torch.randn(3, 5)},
        "history": torch.tensor([[0, 1], [2, 0]]),
        "mask": torch.tensor([[True, True], [False, False]]),
        "strength": torch.ones(2, 2),
    }
    vectors = []
    for module in (earlier, same, shrunk):
        module.load_state_dict(earlier.state_dict())
        vectors.append(module.model.user_vectors(user)[0])
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.allclose(vectors[0][0], vectors[2][0]) and torch.equal(vectors[0][1], vectors[2][1])
