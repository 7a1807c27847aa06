"""The settings of the random changes of training images."""

from typing import Annotated, Literal

from pydantic import Field

from ensync.core.config.layers import Rate, Section


class Augmentation(Section):
    """Random changes of the training images, drawn anew for each image and epoch."""

    flip: bool | Literal["alternating"] = Field(
        False,
        description="mirror left to right; true: an image in every other epoch, at random; "
        "alternating: at random in the first epoch, and from then on in every other one, so that "
        "two epochs show each image both ways (Jordan 2024)",
    )
    crop: Annotated[int, Field(ge=0)] = Field(
        0, description="move by up to so many pixels within a frame of crop_edge"
    )
    random_crop: Annotated[int, Field(ge=0)] = Field(
        0,
        description="side of the square that is cut out of each image, which is what the network "
        "sees: at a random place of the image and the frame of crop while training, else in the "
        "middle; 0: the whole image",
    )
    crop_edge: Literal["zeros", "reflect"] = Field(
        "zeros",
        description="what the frame of crop shows; zeros: black; reflect: the image mirrored at "
        "its outermost pixels (PyTorch's pad of that name)",
    )
    shift: Rate = Field(
        0.0,
        description="move by up to this share of height and width, between pixels; the edge is "
        "repeated",
    )
    rotation: Annotated[float, Field(ge=0, le=180)] = Field(
        0.0, description="turn by up to so many degrees; the edge is repeated"
    )
    cutout: Annotated[int, Field(ge=0)] = Field(0, description="side of a square set to the mean")
    erasing: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="share of images with a rectangle of any shape set to the mean (random "
        "erasing)",
    )
    colour_noise: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="add a random colour to each image: the sum of p_i a_i l_i, with p_i and l_i "
        "the eigenvectors and eigenvalues of the covariance of red, green and blue in the first "
        "5,000 training images, pixels as 0..1, and a_i drawn from a normal distribution of this "
        "deviation (Krizhevsky et al. 2012, section 4.1: 0.1); before data.normalization; 0: not",
    )
    rand_augment: Annotated[int, Field(ge=0, le=14)] = Field(
        0,
        description="so many operations on each image, before all other changes, each drawn from "
        "fourteen: none, shears, shifts, a turn, brightness, colour, contrast, sharpness, fewer "
        "bits, inversion of bright pixels, and a stretched or an even histogram (RandAugment, "
        "Cubuk et al. 2019, with torchvision's ranges: 2); 0: not",
    )
    rand_augment_magnitude: Annotated[float, Field(gt=0, le=30)] = Field(
        9.0, description="how much these change an image"
    )
    mixup: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="mix each image with another of its batch (MixUp), whose share is drawn for "
        "each step from Beta(mixup, mixup), and the losses by both labels by the same shares; "
        "train accuracy goes by the label of the larger share; 0: not",
    )
    cutmix: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="the same with a rectangle cut from the other image, of an area drawn from "
        "Beta(cutmix, cutmix) (CutMix); beside mixup each step does one of the two, evenly; 0: not",
    )
    epochs: Annotated[int, Field(ge=0)] = Field(
        0,
        description="after so many epochs images are only flipped, if at all, to end on images "
        "like those of the test; 0: never",
    )

    def of_epoch(self, epoch: int) -> "Augmentation":
        """Return the changes of an epoch, counted from 0."""
        return Augmentation(flip=self.flip) if 0 < self.epochs <= epoch else self

    def of_one(self) -> "Augmentation":
        """Return the changes of an image by itself."""
        if not (self.mixup or self.cutmix):
            return self
        return self.model_copy(update={"mixup": 0.0, "cutmix": 0.0, "epochs": 0})
