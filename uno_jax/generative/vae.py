"""A variational autoencoder as two functions."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from uno_jax.losses.families import Family, bernoulli, gaussian

LIKELIHOODS = {"bernoulli": bernoulli, "gaussian": gaussian}
LOOK_AT = 64  # images and latents whose values a check looks at


@dataclasses.dataclass(frozen=True)
class VAE:
    r"""A variational autoencoder, without its parameters.

    The latents have the prior N(0, I). With :math:`q = N(\mu, \operatorname{diag} e^{v})` from
    the encoder, the training loss is the negative evidence lower bound

    .. math:: \frac1N \sum_n D(x_n \,\|\, \text{decode}(z_n)) + \text{KL}(q(z | x_n) \,\|\,
      N(0, I)), \quad z_n \sim q(z | x_n)

    up to a constant of the data, where :math:`D` is the divergence of the likelihood.

    Attributes:
      encode: `encode(params, x) -> (mean, log_variance)`, (N, K) float each.
      decode: `decode(params, z) -> outputs`, from (N, K) latents to what the likelihood
        takes: logits for `"bernoulli"`, means for `"gaussian"`; of the shape of `x`.
      likelihood: `"bernoulli"`, for x in [0, 1]; `"gaussian"`, of standard deviation 1, for
        any x; or a `Family` over means, such as `uno.losses.gaussian(0.3)`.

    Raises:
      ValueError: for a likelihood that is none of these.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from uno_jax.generative.vae import VAE
      >>> encode = lambda params, x: (x @ params["in"], jnp.full((len(x), 2), -2.0))
      >>> vae = VAE(encode, lambda params, z: 9 * z @ params["out"])
      >>> params = {"in": jnp.eye(4)[:, :2], "out": jnp.eye(4)[:2]}
      >>> images = jnp.eye(4)
      >>> vae.check(params, images)
      >>> vae.loss_fn(params, {"image": images}, jax.random.key(0)).shape
      ()
      >>> vae.sample(params, jax.random.key(1), 3, latents=2).shape
      (3, 4)
    """

    encode: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]
    decode: Callable[[Any, jax.Array], jax.Array]
    likelihood: str | Family = "bernoulli"

    def __post_init__(self):
        known = isinstance(self.likelihood, Family) or (
            isinstance(self.likelihood, str) and self.likelihood in LIKELIHOODS
        )
        if not known:
            raise ValueError(
                f"likelihood: expected one of {sorted(LIKELIHOODS)} or a Family, "
                f"got {self.likelihood!r}."
            )

    @property
    def family(self) -> Family:
        """The divergence between two outputs and its Fisher metric."""
        if isinstance(self.likelihood, Family):
            return self.likelihood
        return LIKELIHOODS[self.likelihood]()

    def picture(self, outputs: jax.Array) -> jax.Array:
        """What the decoder's outputs (N, ...) draw, in the units of x.

        The mean of the likelihood: the sigmoid of logits for `"bernoulli"`, else `outputs`.
        """
        return jax.nn.sigmoid(outputs) if self.likelihood == "bernoulli" else outputs

    def outputs(self, picture: jax.Array) -> jax.Array:
        """The outputs (N, ...) that draw a picture; the inverse of `picture`.

        Pictures of `"bernoulli"` are clipped to [1e-6, 1 - 1e-6] before their logits are taken.
        """
        if self.likelihood == "bernoulli":
            return jax.scipy.special.logit(jnp.clip(picture, 1e-6, 1 - 1e-6))
        return picture

    def example_loss(self, params: Any, batch: dict[str, jax.Array], key: jax.Array) -> jax.Array:
        """The negative evidence lower bound of each example, from one draw of its latents.

        Args:
          params: all parameters.
          batch: `{"image"}`, (N, ...) float, in [0, 1] for `"bernoulli"`.
          key: noise of the latents.

        Returns:
          (N,) float32, in nats; for `"gaussian"` and a `Family` up to a constant.
        """
        image = batch["image"]
        mean, log_variance = self.encode(params, image)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        outputs = self.decode(params, mean + jnp.exp(0.5 * log_variance) * noise)
        rows = len(image)
        kl = 0.5 * (jnp.exp(log_variance) + mean**2 - 1.0 - log_variance)
        kl = jnp.sum(kl.astype(jnp.float32).reshape(rows, -1), axis=1)
        if self.likelihood == "bernoulli":
            entropy = (jax.nn.softplus(outputs) - image * outputs).astype(jnp.float32)
            return jnp.sum(entropy.reshape(rows, -1), axis=1) + kl
        return self.family.divergence(image, outputs) + kl

    def loss_fn(self, params: Any, batch: dict[str, jax.Array], key: jax.Array) -> jax.Array:
        """The training loss: the mean of `example_loss` over the batch, a float32 scalar."""
        return jnp.mean(self.example_loss(params, batch, key))

    def sample(self, params: Any, key: jax.Array, count: int, *, latents: int) -> jax.Array:
        """Draws pictures of latents from N(0, I).

        Args:
          params: all parameters.
          key: noise of the latents.
          count: how many pictures.
          latents: K, how many latents the model has.

        Returns:
          (count, ...) float, the means of the likelihood in the units of x: no noise of
          single pixels is added.
        """
        return self.picture(self.decode(params, jax.random.normal(key, (count, latents))))

    def check(self, params: Any, images: np.ndarray) -> None:
        """Checks that the two functions, the parameters and the data belong together.

        Looks at shapes without computing anything, then at the values of a few images.

        Args:
          params: all parameters, of a trained model.
          images: (N, ...) float, examples as the encoder takes them.

        Raises:
          ValueError: if `encode` does not return two (N, K) arrays or seems to return
            something else than log variances; if `decode` does not return the shape of the
            images, or probabilities where logits are wanted; if there are no images, or their
            values are not finite or, for `"bernoulli"`, outside [0, 1].
        """
        shape, dtype = np.shape(images), np.asarray(images[:1]).dtype
        if len(shape) < 2 or not shape[0]:
            raise ValueError(f"images: expected (N, ...) with at least one image, got {shape}.")
        low, high = float(np.min(images)), float(np.max(images))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError(f"images: expected finite values, got {low} to {high}.")
        if self.likelihood == "bernoulli" and not 0 <= low <= high <= 1:
            raise ValueError(
                f"images: expected values in [0, 1] for likelihood='bernoulli', got {low:g} to "
                f"{high:g}; divide 8-bit images by 255, or use likelihood='gaussian' if the "
                "model was trained with a squared error."
            )
        if not np.issubdtype(dtype, np.floating):
            raise ValueError(
                f"images: expected floats as the encoder was trained on, got {dtype}; "
                "convert them as for training."
            )
        few = jnp.asarray(images[:LOOK_AT])
        latents = self._check_shapes(params, few)
        self._check_values(params, few, latents)

    def _check_shapes(self, params, images) -> int:
        try:
            posterior = jax.eval_shape(self.encode, params, images)
        except Exception as error:  # of whatever library the model is written in
            raise ValueError(
                f"encode: expected encode(params, images) to take images {images.shape} with these "
                f"parameters, got {type(error).__name__}: {_first_line(error)}"
            ) from error
        rows = len(images)
        shapes = [leaf.shape for leaf in jax.tree.leaves(posterior)]
        if (
            not isinstance(posterior, tuple | list)
            or len(shapes) != 2
            or shapes[0] != shapes[1]
            or len(shapes[0]) != 2
            or shapes[0][0] != rows
        ):
            raise ValueError(
                f"encode: expected (mean, log_variance), two arrays ({rows}, K) for {rows} images, "
                f"got {type(posterior).__name__} of shapes {shapes}; return exactly these two."
            )
        count = shapes[0][1]
        latents = jax.ShapeDtypeStruct((rows, count), jnp.float32)
        try:
            outputs = jax.eval_shape(self.decode, params, latents)
        except Exception as error:  # of whatever library the model is written in
            raise ValueError(
                f"decode: expected decode(params, z) to take ({rows}, {count}) latents alone, as "
                f"encode gives them, got {type(error).__name__}: {_first_line(error)}"
            ) from error
        if getattr(outputs, "shape", None) != images.shape:
            got = [leaf.shape for leaf in jax.tree.leaves(outputs)]
            raise ValueError(
                f"decode: expected one array of the shape of the images, {images.shape}, got "
                f"{', '.join(map(str, got))}; reshape what decode returns, or the images."
            )
        return count

    def _check_values(self, params, images, latents) -> None:
        log_variance = np.asarray(jax.jit(self.encode)(params, images)[1])
        if np.all(log_variance > 0):
            raise ValueError(
                "encode: expected log variances as its second array, negative where the image "
                f"says anything of a latent, got {log_variance.min():.3g} to "
                f"{log_variance.max():.3g}, all positive, as standard deviations or variances "
                "are; return 2 * jnp.log(deviation) or jnp.log(variance)."
            )
        if self.likelihood != "bernoulli":
            return
        z = jax.random.normal(jax.random.key(0), (LOOK_AT, latents))
        outputs = np.asarray(jax.jit(self.decode)(params, z))
        low, high = outputs.min(), outputs.max()
        if 0 <= low < high <= 1:
            raise ValueError(
                f"decode: expected logits for likelihood='bernoulli', got values in "
                f"[{low:.3g}, {high:.3g}], as a sigmoid gives them. If the model was trained with "
                "cross-entropy, return what enters the sigmoid, or jax.scipy.special.logit of what "
                "it returns, clipped to [1e-6, 1 - 1e-6]; if with a squared error, use "
                "likelihood='gaussian'."
            )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
