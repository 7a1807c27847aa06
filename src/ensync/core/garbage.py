"""How often Python looks for objects that only refer to each other.

A start imports some hundred thousand objects that stay. To look for garbage among them again and
again takes a quarter of the processor time of a short run.
"""

import gc

USUAL = gc.get_threshold()
START = 200_000  # new objects before a look; a start makes about as many


def look_seldom() -> None:
    """Look for garbage after START new objects, while the program starts."""
    gc.set_threshold(START, *USUAL[1:])


def look_as_usual() -> None:
    """Look for garbage as Python does by itself, after a start not among what was imported."""
    if gc.get_threshold() != USUAL:
        gc.freeze()
        gc.set_threshold(*USUAL)
