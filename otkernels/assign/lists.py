"""The lists of one assignment problem: each row's k best columns, a bound of what the others cost, and the duals.

What the compiled solvers (csrc/assign: lists.h, auction.h, paths.h) read and write lies here, in arrays on the host.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import _native
from ..l2_argmin import l2_argmin
from ..l2_topk import l2_topk

Array = np.ndarray[Any, Any]
DIVISOR = 5.0  # of epsilon, from one phase of an auction to the next
LAST_EPSILON = 0.02  # in widths of a list
REACH = 16.0  # widths beyond a list's bound that an auction may use it for
BIDS = 60  # a row, in one phase
LATER = 8  # lists a row, for all phases but the first
ROUNDS, FEW, FEWEST = 1 / 64, 0.002, 8  # rounds a row after which a few rows that are left are left to searches
STALE = 0.02  # share of the rows that are listed anew together
LOW = 4  # dimensions up to which neighbours are many and lists are long
LISTS = 32, 64  # columns a row, in many dimensions and in few
LAST = 64  # columns a row, for the searches at the end
LONGEST = 128  # what l2_topk can find
PUT_OFF = 7 / 8  # share of the searches beyond which it does not pay to put them off once more
SEVERAL = 64  # rows for which it pays to list many rows together
COARSE = 4.0  # times the final potentials' size that they may have been: a few of the 4 (D + 16) roundings in verify
LEFT_OVER = -2  # in place of a column's owner, where n < m: kCrowd of paths.h
MORE = 16  # open columns that a row in the way of a search offers: kAssignMore of assign.h


class Solved(NamedTuple):
    """index [N], u [N] and v [M]."""

    index: Tensor  # type: ignore[assignment]
    u: Tensor
    v: Tensor


class Lists:
    """The state of one problem: what the compiled solvers read and write lies in arrays on the host."""

    def __init__(self, x: Tensor, y: Tensor, potential: Tensor | None) -> None:
        self.x, self.y = x.contiguous(), y.contiguous()
        self.n, self.m, self.d = len(x), len(y), x.shape[1]
        self.k = min(self.m, LISTS[self.d <= LOW])
        self.capacity = min(self.m, LONGEST)
        self.host = [None if t is None else t.contiguous().cpu() for t in (x, y, potential)]
        shape = (self.n, self.capacity)
        self.column, self.length = np.zeros(shape, np.int32), np.zeros(self.n, np.int32)
        self.cost, self.floor = np.zeros(shape), np.zeros(shape)
        self.bound, self.u, self.v = np.zeros(self.n), np.zeros(self.n), np.zeros(self.m)
        self.owner, self.match = np.full(self.m, -1, np.int32), np.full(self.n, -1, np.int32)
        self.all_rows = np.arange(self.n)
        self.budget = 0  # how many rows auctions may have listed
        self.bids = BIDS
        self.largest = 0.0  # the largest potential that searches started from
        self.is_coarse = False  # whether that was so large that digits of the result were lost
        self.listed = self.steps = self.scans = 0  # rows listed, bids made, rows scanned

    def start(self, x: Tensor, u: Tensor) -> None:
        """v_j = min_i |x_i - y_j|^2 - u_i, less the column's potential: the c-transform of coarser points' u."""
        self.v += l2_argmin(self.y, x, u.to(x.dtype)).value.double().cpu().numpy() - self.prices().numpy()
        self.v -= np.median(self.v)

    def prices(self) -> Tensor:
        """potential_j + v_j [M] in float64: what l2_topk and l2_argmin take off a squared distance."""
        v = torch.from_numpy(self.v)
        return v.clone() if self.host[2] is None else v + self.host[2].double()

    def list_rows(self, rows: Array, k: int | None = None) -> None:
        """The k best columns of these rows under v; in float64 where the points' precision tells too little."""
        k = k or self.k
        self._list(rows, k, self.x.dtype)
        if self.x.dtype != torch.float64:
            unsure = rows[self.bound[rows] < self.u[rows]]
            if len(unsure):
                self._list(unsure, k, torch.float64)

    def _list(self, rows: Array, k: int, dtype: torch.dtype) -> None:
        found, unlisted = self._find(rows, k, dtype)
        self._call("list", rows.ctypes.data, len(rows), found.ctypes.data, k, unlisted.ctypes.data, self.u.ctypes.data,
                   torch.get_num_threads())  # fmt: skip
        self.listed += len(rows)

    def _find(self, rows: Array, k: int, dtype: torch.dtype, closed: Array | None = None) -> tuple[Array, Array]:
        """Columns [rows, k] of least c_ij - v_j among those that are not closed, and what all others cost at least."""
        x, y, prices = self.x, self.y, self.prices().to(self.x.device)
        if rows is not self.all_rows:  # as many rows may stand in another order
            x = x[torch.from_numpy(rows).to(x.device)]
        if closed is not None:
            columns = torch.from_numpy(np.flatnonzero(closed == 0)).to(x.device)
            y, prices = y[columns], prices[columns]
        k = min(k, len(y))
        if k == 0:
            return np.empty((len(rows), 0), np.int64), np.full(len(rows), np.inf)
        largest = float(prices.abs().max())
        value, index = l2_topk(x.to(dtype), y.to(dtype), k, prices.to(dtype))
        last, found = value[:, -1].double().cpu().numpy(), (index if closed is None else columns[index]).cpu().numpy()
        # a distance summed from differences, less its potential, errs by (D + 3) units of both; potentials are rounded
        unit = torch.finfo(dtype).eps / 2
        error = 2 * (self.d + 4) * unit * (np.abs(last) + 2 * largest)
        return found, last - error if k < len(y) else np.full(len(rows), np.inf)

    def _call(self, step: str, *arguments: Any) -> Any:
        addresses = [0 if tensor is None else tensor.data_ptr() for tensor in self.host]
        state = (self.column, self.cost, self.floor, self.bound, self.length, self.v, self.owner, self.match)
        function = getattr(_native.extension, f"assign_{step}_cpu_{_native.suffix(self.x)}")
        return function(
            *addresses, *(array.ctypes.data for array in state), self.n, self.m, self.d, self.capacity, *arguments
        )

    def width(self) -> Array:
        """How far a list's last entry is from its first [N]."""
        return self.floor[np.arange(self.n), self.length - 1] - self.floor[:, 0]

    def tied(self) -> float:
        """The share of rows whose lists end where they begin."""
        return float((self.width() == 0).mean())

    def least(self) -> Array:
        """min_j c_ij - v_j over each row's list [N]."""
        least = np.full(self.n, np.inf)
        for start in range(0, self.n, 4096):
            part = slice(start, start + 4096)
            value = self.cost[part] - self.v[self.column[part]]
            value[np.arange(self.capacity) >= self.length[part, None]] = np.inf
            least[part] = value.min(1)
        return least

    def lengthen(self) -> None:
        self.k = self.capacity
        self.list_rows(self.all_rows)

    def phases(self, count: int) -> bool:
        """``count`` phases down to the last epsilon; none but the first if that leaves rows without a column."""
        last = LAST_EPSILON * float(np.median(self.width()))
        if last == 0:  # ties wherever one looks: searches alone will do
            return True
        if not self.auction(last * DIVISOR ** (count - 1)):
            return False
        self.budget += LATER * self.n
        for phase in reversed(range(count - 1)):
            self.auction(last * DIVISOR**phase)
        return True

    def auction(self, epsilon: float) -> bool:
        """One phase; whether every row has found a column, or all but a few that paths will find theirs."""
        self.owner.fill(-1)
        self.match.fill(-1)
        queue, stale = np.arange(self.n), np.empty(self.n, np.int64)
        most_stale = max(4 * SEVERAL, int(STALE * self.n))
        waiting, bids, rounds = self.n, 0, 0
        most_bids = self.bids * self.n
        while bids < most_bids and self.listed < self.budget:
            rest = self._call("auction", epsilon, REACH, queue.ctypes.data, waiting, stale.ctypes.data, most_stale,
                              most_bids - bids)  # fmt: skip
            bids, rounds, self.listed = bids + rest.steps, rounds + 1, self.listed + rest.listed
            if rest.stale == 0:
                break
            self.list_rows(stale[: rest.stale].copy())
            queue[rest.rows : rest.rows + rest.stale] = stale[: rest.stale]
            waiting = rest.rows + rest.stale
            if rounds > ROUNDS * self.n and waiting < max(FEWEST, FEW * self.n):
                self.steps += bids
                return True
        self.steps += bids
        return bool((self.match >= 0).all())

    def finish(self) -> None:
        """Exact: lists anew, pairs that are tight, augmenting paths for the others."""
        self.list_rows(self.all_rows, min(LAST, self.capacity))
        self.largest = float(max(np.abs(self.u).max(), np.abs(self.v).max()))
        self.owner.fill(-1)
        self.match.fill(-1)
        best = self.column[:, 0]
        self.owner[best[::-1]] = np.arange(self.n - 1, -1, -1)  # the lowest row of those that share a column
        kept = self.owner[best] == np.arange(self.n)
        self.match[kept] = best[kept]
        if self.n < self.m:
            left = np.flatnonzero((self.owner < 0) & (self.v == self.v.max()))[: self.m - self.n]
            self.owner[left] = LEFT_OVER
        queue = np.empty(self.n, np.int64)
        count = self.n - int(kept.sum())
        queue[:count] = np.flatnonzero(~kept)
        self._paths(queue, count)

    def _paths(self, queue: Array, count: int) -> None:
        """Augmenting paths from ``count`` rows; rows that many searches lack lists of are listed together first."""
        rows, closed = np.empty(self.n, np.int64), np.zeros(self.m, np.uint8)
        found, unlisted = np.empty((self.n, MORE), np.int64), np.empty(self.n)
        arrays = [array.ctypes.data for array in (rows, closed, found, unlisted)]

        def ask(asked: int, is_open: bool) -> None:
            if is_open:
                index, bound = self._find(rows[:asked], MORE, self.x.dtype, closed)
                found[:asked], unlisted[:asked] = -1, bound
                found[:asked, : index.shape[1]] = index
            else:
                self.list_rows(rows[:asked].copy(), self.capacity)

        stuck, missing = False, self.m - self.n
        while count or missing:
            defer = count > SEVERAL and not stuck
            rest = self._call("paths", defer, queue.ctypes.data, count, *arrays, ask)
            self.scans, self.listed, missing = self.scans + rest.steps, self.listed + rest.listed, rest.missing
            stale = rows[: rest.stale].copy()
            lengths = self.length[stale]
            stuck = stuck or rest.rows > PUT_OFF * count
            for k in np.unique(lengths).tolist():
                self.list_rows(stale[lengths == k], min(2 * k, self.capacity))
            count = rest.rows

    def primal(self) -> float:
        """What the matched pairs cost."""
        pairs = self.column == self.match[:, None]
        pairs[np.arange(self.capacity) >= self.length[:, None]] = False
        return float(self.cost[pairs].sum())

    def _shift(self) -> float:
        """What makes v's mean 0; where n < m, what makes v of the columns that are left over 0."""
        if self.n == self.m:
            return float(self.v.mean())
        left = self.v[self.owner == LEFT_OVER]
        return float(left.max() if len(left) else self.v.max())

    def result(self) -> Solved:
        """index [N], u [N], v [M]; u_i = min_j c_ij - v_j over all columns."""
        worked = float(max(np.abs(self.v).max(), self.largest))
        for _ in range(2):  # the second time for what the first one's rounding left, where v was large
            shift = self._shift()
            self.v -= shift
            self.bound += shift
        if self.n < self.m:
            np.minimum(self.v, 0, out=self.v)  # by rounding a column with a row may lie above those without
        self.u = self.least()
        self.is_coarse = worked > COARSE * float(np.abs(self.u).max() + np.abs(self.v).max())
        unsure = np.flatnonzero(self.bound < self.u)  # rows whose lists a search has extended
        if len(unsure):
            x = self.x[torch.from_numpy(unsure).to(self.x.device)]
            value, _ = l2_argmin(x.double(), self.y.double(), self.prices().to(x.device))
            self.u[unsure] = value.cpu().numpy()
        index, u, v = (torch.from_numpy(array) for array in (self.match.astype(np.int64), self.u, self.v))
        return Solved(index, u, v)
