"""How sure a figure is, how good probabilities are, and what makes an ensemble worth it.

`intervals`: accuracies and means; `pairs`: two contestants on the same images and seeds, and what
`variances` their difference has; `permutations`: groups of values; `calibration`; `ensembles`;
`selection`: fusions that are fitted.
The formulas are written out on scipy.special: scipy.stats has them all, but takes a second
to import at the end of each run.
"""

from ensync.core.statistics.intervals import (
    Interval,
    accuracy_interval,
    mean_interval,
    share_interval,
)
from ensync.core.statistics.pairs import PairedTest, mcnemar, paired_counts

__all__ = [
    "Interval",
    "PairedTest",
    "accuracy_interval",
    "mcnemar",
    "mean_interval",
    "paired_counts",
    "share_interval",
]
