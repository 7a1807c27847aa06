"""In how many parts the images of a filters' gradient are summed, each with sums of its own: then
a thread reads itself what it lays out.
"""

MOST_PARTS, LEAST_PARTS = 32, 4


def parts_of(images: int, values: int, sums: int) -> int:
    """Return a number of parts, a power of two: so few that all sums are a quarter of the values of
    images and gradients, or the least number and not larger than these, or 1.

    It does not depend on the threads, whose number changes no sum.
    """
    beside = values // sums
    if min(beside, images) < LEAST_PARTS:
        return 1
    parts = MOST_PARTS
    while parts > max(LEAST_PARTS, min(beside // 4, images)):
        parts //= 2
    return parts
