"""What a classifier says of images.

A classifier that judges must not have guided or stopped the method it judges:
samples steered by a classifier are adversarial examples for it.
"""

from collections.abc import Callable

import numpy as np

from uno_jax.metrics.proportions import Proportion, proportion


def predict(classify: Callable, images, *, chunk: int = 2000) -> np.ndarray:
    """Classifies images in chunks.

    Args:
      classify: from (n, ...) images to (n, classes) logits, jitted or not.
      images: (N, ...) array.
      chunk: most images at a time.

    Returns:
      (N,) int, the most probable class of each.
    """
    parts = [
        np.asarray(classify(images[start : start + chunk])).argmax(axis=-1)
        for start in range(0, len(images), chunk)
    ]
    return np.concatenate(parts)


def forgotten_fraction(classify: Callable, images, label: int) -> Proportion:
    """The fraction of images that a classifier takes for the forgotten class.

    Args:
      classify: from (n, ...) images to (n, classes) logits.
      images: (N, ...) generated samples.
      label: the class to be forgotten.

    Returns:
      A `Proportion`, 0 where nothing of the class is left.
    """
    predicted = predict(classify, images)
    return proportion(int((predicted == label).sum()), len(predicted))


def accuracy(classify: Callable, images, labels) -> Proportion:
    """The fraction of images classified as their label.

    Args:
      classify: from (n, ...) images to (n, classes) logits.
      images: (N, ...) array.
      labels: (N,) int.

    Returns:
      A `Proportion`.
    """
    predicted = predict(classify, images)
    return proportion(int((predicted == np.asarray(labels)).sum()), len(predicted))
