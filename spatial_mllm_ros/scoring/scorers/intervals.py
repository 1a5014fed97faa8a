"""95 % intervals of scores: Wilson's for shares of right answers, a bootstrap over scenes for everything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
RESAMPLES = 2000
_SEED = 0


def wilson(successes: float, count: int) -> tuple[float, float]:
    """Wilson's score interval of a share (J. Am. Stat. Assoc. 22, 1927); (0, 1) for no trials."""
    if count == 0:
        return 0.0, 1.0
    share, spread = successes / count, _Z * _Z / count
    centre = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(
    groups: Sequence[str], statistics: np.ndarray, figures: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray, str]:
    """Percentile intervals of figures that depend on sums over questions (Efron 1979), resampling whole groups.

    The scores of questions about one scene depend on each other, so scenes are drawn with replacement, and questions
    only where all of them are about one scene. The draws are fixed by a seed. Unlike ``scipy.stats.bootstrap``, a
    resample that lacks a type of question does not cost the type its interval.

    Args:
        groups: the scene of each question.
        statistics: float64 [questions, d]; the rows of a resample are added up.
        figures: sums [r, d] -> figures [r, m], with NaN where a resample has nothing to average.

    Returns:
        low [m], high [m], and the method in words.
    """
    names, index = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    unit = "scenes"
    if len(names) < 2:
        index, unit = np.arange(len(statistics)), "questions"
    units = int(index.max()) + 1 if len(index) else 0
    if units == 0:
        nothing = figures(np.zeros((1, statistics.shape[1])))[0]
        return nothing, nothing, "none"
    sums = np.zeros((units, statistics.shape[1]))
    np.add.at(sums, index, statistics)
    rng = np.random.default_rng(_SEED)
    drawn = rng.multinomial(units, np.full(units, 1 / units), size=RESAMPLES).astype(np.float64)
    resampled = figures(drawn @ sums)
    low, high = np.full((2, resampled.shape[1]), np.nan)
    for column in range(resampled.shape[1]):
        found = resampled[:, column][~np.isnan(resampled[:, column])]
        if len(found):
            low[column], high[column] = np.percentile(found, [2.5, 97.5])
    return low, high, f"bootstrap over {units} {unit}"
