"""fit_transport on a GPU: one launch against the composed ops, called eagerly and replayed from a CUDA graph."""

from __future__ import annotations

import dataclasses

from .. import fit_transport as cpu
from ..contestants import Contestant

SUITE = dataclasses.replace(
    cpu.SUITE,
    cases=(cpu.case_of(64, 128), cpu.case_of(64, 2), cpu.case_of(256, 128), cpu.case_of(256, 2)),
    contestants=(
        Contestant("otkernels cuda", cpu.ours("cuda"), convert=cpu.own_state, device="cuda"),
        Contestant("composed ops", cpu.composed, convert=cpu.with_optimizer, device="cuda"),
    ),
    targets=1,
    about=(
        cpu.ABOUT + " Contestants: `otkernels.fit_transport`; the composed ops (`soft_forest`, `l2_argmin`, autograd, "
        "`torch.optim.Adam(fused=True, capturable=True)`)."
    ),
)
