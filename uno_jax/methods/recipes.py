"""From a method's name and a model to the recipe that runs it."""

import inspect
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, NamedTuple

from uno_jax.diffusion import Diffusion
from uno_jax.methods import diffusion, gradient
from uno_jax.methods.job import Job
from uno_jax.methods.table import METHODS


class Recipe(NamedTuple):
    """How a method is run on a family of models.

    Attributes:
      method: its name.
      family: what the family is called in messages.
      build: `build(model, params, retain, forget, **options) -> Job`.
      exchanges: whether a forgotten label is sent to an exchange label unless told otherwise.
    """

    method: str
    family: str
    build: Callable[..., Job]
    exchanges: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """The options by name, with their defaults."""
        parameters = inspect.signature(self.build).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _gradient_recipes(module: Any) -> dict[str, Callable]:
    named = {name: partial(module.descend, name) for name in gradient.DESCENTS}
    return named | {name: partial(module.descend_with_penalty, name) for name in gradient.PENALIZED}


def _vae_recipes() -> dict[str, Callable]:
    from uno_jax.methods.redirect_vae import redirect_vae

    @wraps(redirect_vae)
    def redirect(model, params, retain, forget, **options):
        # It places targets among the latents of all images, and so takes them in memory.
        images = (side.arrays["image"] for side in gradient.read_sides(retain, forget))
        return redirect_vae(model, params, *images, **options)

    return {"redirect": redirect} | _gradient_recipes(gradient)


def _loss_recipes() -> dict[str, Callable]:
    return _gradient_recipes(gradient)


def _diffusion_recipes() -> dict[str, Callable]:
    return {
        "redirect": diffusion.redirect,
        **_gradient_recipes(diffusion),
        "salun-relabel": diffusion.relabel,
        "esd-x": partial(diffusion.erase, "esd-x"),
        "esd-u": partial(diffusion.erase, "esd-u"),
    }


VAE = "a VAE"
DIFFUSION = "a diffusion model"
OTHER = "a model with a loss"
FAMILIES: dict[str, Callable[[], dict[str, Callable]]] = {
    VAE: _vae_recipes,
    DIFFUSION: _diffusion_recipes,
    OTHER: _loss_recipes,
}
"""From a family to its recipes by name of the method."""
UNTAUGHT = {
    "redirect": "it needs a redirect of the family: a VAE's or a diffusion model's",
    "redirect-diagonal": "it needs a second moment of the retain gradients; write its step",
    "redirect-adam": "it is what method='redirect' runs on a diffusion model with labels",
    "salun-relabel": "it needs labels",
    "esd-x": "it needs labels, and a prediction without them",
    "esd-u": "it needs labels, and a prediction without them",
    "selective-amnesia": "it needs a Fisher information and a surrogate; write its step",
    "recalibration": "it needs running statistics of batch norm; write its step",
}
"""Why a method of `METHODS` has no recipe for some family."""


def family_of(model: Any) -> str:
    """Says what family of models a model is of.

    Raises:
      ValueError: if it is of none.
    """
    from uno_jax.generative import vae

    if isinstance(model, Diffusion):
        return DIFFUSION
    if isinstance(model, vae.VAE):
        return VAE
    if callable(getattr(model, "loss_fn", None)):
        return OTHER
    raise ValueError(
        "model: expected a uno_jax.generative.vae.VAE, a uno_jax.diffusion.Diffusion, or an object "
        f"with loss_fn(params, batch, key), got {type(model).__name__}; describe a network by the "
        "functions of one of these."
    )


def recipe_for(method: str, model: Any) -> Recipe:
    """Finds the recipe of a method for a model.

    Args:
      method: its name, such as `"redirect"`.
      model: a `VAE`, a `Diffusion`, or an object with `loss_fn(params, batch, key)`.

    Returns:
      A `Recipe`.

    Raises:
      ValueError: if the method is not known or the family cannot run it, with the reason and
        the methods that it can run.

    Examples:
      >>> from uno_jax import diffusion
      >>> from uno_jax.methods.recipes import recipe_for
      >>> model = diffusion.Diffusion(lambda p, x, t, labels: p * x, diffusion.cosine())
      >>> sorted(recipe_for("surgery", model).options)[:3]
      ['batch_size', 'exchange', 'label_dropout']
    """
    family = family_of(model)
    recipes = FAMILIES[family]()
    if method in recipes:
        exchanges = family == DIFFUSION and method not in ("retain-descent", "esd-x", "esd-u")
        return Recipe(method, family, recipes[method], exchanges)
    reason = UNTAUGHT.get(method, "it has no recipe") if method in METHODS else "no such method"
    raise ValueError(
        f"method: expected one that {family} can run ({', '.join(sorted(recipes))}), got "
        f"{method!r}: {reason}."
    )
