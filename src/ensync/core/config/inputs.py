"""What a network gets of the images of a dataset: all of each, or a part."""

from collections.abc import Sequence

from ensync.core.config.schema import Job
from ensync.core.errors import EnsyncError

COLOURS = 3  # channels of an image whose colours can be changed


def input_shape(job: Job, images: Sequence[int]) -> tuple[int, int, int]:
    """Return height, width and channels of a network's inputs, for images of that shape.

    Errors: EnsyncError for images that augmentation.random_crop, augmentation.colour_noise,
    augmentation.rand_augment or evaluation.augmentation does not fit.
    """
    height, width, channels = images
    given, side = job.augmentation, job.augmentation.random_crop
    shape = " x ".join(map(str, images))
    if side > min(height, width):
        raise EnsyncError(
            f"augmentation.random_crop = {side} with images of {shape}",
            f"images of {side} x {side} or more",
            "lower it, or prepare the images larger",
        )
    if given.colour_noise and channels != COLOURS:
        raise EnsyncError(
            f"augmentation.colour_noise = {given.colour_noise:g} with images of {shape}",
            "images of three channels: red, green and blue",
            "set augmentation.colour_noise = 0",
        )
    if given.rand_augment and channels not in (1, COLOURS):
        raise EnsyncError(
            f"augmentation.rand_augment = {given.rand_augment} with images of {shape}",
            "images of one channel, or of three: red, green and blue",
            "set augmentation.rand_augment = 0",
        )
    if job.evaluation.augmentation == "ten_views" and side in (0, max(height, width)):
        raise EnsyncError(
            f"evaluation.augmentation = 'ten_views' with inputs of whole images of {shape}",
            "an augmentation.random_crop smaller than the images, so that they have corners",
            "lower augmentation.random_crop, or set evaluation.augmentation = 'mirror'",
        )
    return (side or height, side or width, channels)
