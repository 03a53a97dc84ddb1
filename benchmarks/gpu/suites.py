"""The GPU's suites by op."""

from __future__ import annotations

from ..contestants import Suite
from . import fit_transport, l2_argmin, l2_topk, soft_forest

GPU_SUITES: dict[str, Suite] = {
    suite.op: suite for suite in (fit_transport.SUITE, soft_forest.SUITE, l2_argmin.SUITE, l2_topk.SUITE)
}
