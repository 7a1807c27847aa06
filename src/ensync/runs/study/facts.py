"""What a study must know of its dataset before anything is trained."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """The images of each split, their shape (height, width, channels), the number of classes."""

    train: int
    validation: int
    test: int
    shape: tuple[int, ...]
    classes: int
