"""Convolutions of images, channels last: direct, Winograd, grouped, depthwise, separable."""
