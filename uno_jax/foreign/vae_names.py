"""Where the published MNIST weights go in our modules."""

from uno_jax.foreign.torch_layouts import Entry, batch_norm, linear

MNIST_VAE: tuple[Entry, ...] = (
    *linear("encoder.0", ("encoder", "hidden")),
    *batch_norm("encoder.1", ("encoder", "norm")),
    *linear("enc_mu", ("encoder", "mean")),
    *linear("enc_log_sigma", ("encoder", "log_variance")),
    *linear("decoder.0", ("decoder", "hidden")),
    *batch_norm("decoder.1", ("decoder", "norm")),
    *linear("decoder.3", ("decoder", "logits")),
)
"""Entries for `uno_jax.models.MnistVAE`."""

DIGIT_MLP: tuple[Entry, ...] = (
    *linear("fc1", ("hidden",)),
    *batch_norm("bn1", ("norm",)),
    *linear("fc2", ("logits",)),
)
"""Entries for `uno_jax.models.DigitMLP(normalize=True)`."""
