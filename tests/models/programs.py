"""Small networks for tests: programs compiled quickly, parameters none of which is zero."""

import jax
import jax.numpy as jnp
import numpy as np

# Without the passes that make a program fast: it runs once, and memory is planned the same.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def compiled(fn, *arguments):
    """The value of a function, compiled."""
    return jax.jit(fn, compiler_options=QUICK)(*arguments)


def perturbed(model, *arrays):
    """Parameters for these inputs, drawn here: at the start whole layers are zero.

    Only the shapes are the model's, so that no initialisation is compiled.
    """
    shapes = jax.eval_shape(model.init, jax.random.key(0), *arrays)["params"]
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        name = path[-1].key
        spread = 0.2 if leaf.ndim < 2 else np.hypot(0.2, np.prod(leaf.shape[:-1]) ** -0.5)
        centre = 1.0 if name == "scale" else 0.0
        return jnp.asarray(centre + spread * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)
