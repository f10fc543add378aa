"""Where the weights of published models go in our modules."""

from uno_jax.foreign.torch_layouts import (
    CONVOLUTION,
    TRANSPOSED_CONVOLUTION,
    Entry,
    batch_norm,
    from_pixels,
    layer,
    to_pixels,
)

MNIST_VAE: tuple[Entry, ...] = (
    *layer("encoder.0", ("encoder", "hidden")),
    *batch_norm("encoder.1", ("encoder", "norm")),
    *layer("enc_mu", ("encoder", "mean")),
    *layer("enc_log_sigma", ("encoder", "log_variance")),
    *layer("decoder.0", ("decoder", "hidden")),
    *batch_norm("decoder.1", ("decoder", "norm")),
    *layer("decoder.3", ("decoder", "logits")),
)
"""Entries for `uno_jax.models.MnistVAE`."""

DIGIT_MLP: tuple[Entry, ...] = (
    *layer("fc1", ("hidden",)),
    *batch_norm("bn1", ("norm",)),
    *layer("fc2", ("logits",)),
)
"""Entries for `uno_jax.models.DigitMLP(normalize=True)`."""


def conv_vae(channels: tuple[int, ...] = (32, 64, 128, 256, 512)) -> tuple[Entry, ...]:
    """Entries for `uno_jax.models.ConvVAE`, from a PyTorch VAE of the same layers.

    Args:
      channels: of the convolutions, from the picture to the latents.

    Returns:
      Entries for the names `encoder.I.0` (`Conv2d`), `encoder.I.1` (`BatchNorm2d`),
      `mean`, `log_variance`, `input` (`Linear`), `decoder.I.0` (`ConvTranspose2d`),
      `decoder.I.1`, and `output` (`Conv2d`).
    """
    entries: list[Entry] = []
    for i in range(len(channels)):
        entries += layer(f"encoder.{i}.0", ("encoder", f"down{i}"), CONVOLUTION)
        entries += batch_norm(f"encoder.{i}.1", ("encoder", f"norm{i}"))
        entries += layer(f"decoder.{i}.0", ("decoder", f"up{i}"), TRANSPOSED_CONVOLUTION)
        entries += batch_norm(f"decoder.{i}.1", ("decoder", f"norm{i}"))
    wide = channels[-1]
    entries += layer("mean", ("encoder", "mean"), from_pixels(wide))
    entries += layer("log_variance", ("encoder", "log_variance"), from_pixels(wide))
    entries += layer("input", ("decoder", "input"), to_pixels(wide), to_pixels(wide))
    entries += layer("output", ("decoder", "output"), CONVOLUTION)
    return tuple(entries)
