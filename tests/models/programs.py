"""Small networks for tests: programs compiled quickly, parameters none of which is zero."""

import jax

# Without the passes that make a program fast: it runs once, and memory is planned the same.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def compiled(fn, *arguments):
    """The value of a function, compiled."""
    return jax.jit(fn, compiler_options=QUICK)(*arguments)


def perturbed(model, *arrays):
    """Parameters for these inputs, with noise: at the start whole layers are zero."""
    params = compiled(model.init, jax.random.key(1), *arrays)["params"]
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noise = [0.2 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, [a + b for a, b in zip(leaves, noise, strict=True)])
