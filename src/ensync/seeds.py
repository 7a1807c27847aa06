"""Where every random choice comes from: a pure function of the job's seed, a purpose and numbers such as member or epoch."""

import enum

import numpy as np


class Purpose(enum.IntEnum):
    """What a random choice is for; the numbers are part of the file format, since a resumed run must draw the same."""

    START = 1
    ORDER = 2
    MASK = 3
    ROWS = 4
    AUGMENTATION = 5


def generator(seed: int, purpose: Purpose, *numbers: int) -> np.random.Generator:
    """Return the generator of a purpose; different numbers (member, epoch, ...) give independent streams (numpy's SeedSequence)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, int(purpose), *numbers])))


def key(seed: int, purpose: Purpose, *numbers: int) -> int:
    """Return 64 bits for a counter-based kernel (dropout masks, augmentation)."""
    return int(np.random.SeedSequence([seed, int(purpose), *numbers]).generate_state(1, np.uint64)[0])
