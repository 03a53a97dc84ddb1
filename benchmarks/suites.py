"""The CPU's suites by op."""

from __future__ import annotations

from . import assign, fit_transport, l2_argmin, l2_topk, soft_forest
from .contestants import Suite

SUITES: dict[str, Suite] = {
    suite.op: suite
    for suite in (
        l2_argmin.SUITE,
        l2_argmin.DATA_SUITE,
        l2_topk.SUITE,
        l2_topk.DATA_SUITE,
        soft_forest.SUITE,
        fit_transport.SUITE,
        assign.SUITE,
        assign.DATA_SUITE,
    )
}
