"""The suites by op."""

from __future__ import annotations

from . import l2_argmin, soft_forest
from .contestants import Suite

SUITES: dict[str, Suite] = {suite.op: suite for suite in (l2_argmin.SUITE, soft_forest.SUITE)}
