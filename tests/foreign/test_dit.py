"""Published diffusion transformers: a PyTorch module of the same architecture beside ours."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from uno_jax import foreign, models

torch = pytest.importorskip("torch", reason="needs torch, of the test extra")

PATCH, DEPTH, WIDTH, HEADS, CLASSES, CHANNELS, SIDE = 2, 3, 32, 4, 6, 4, 8


def modulated(x, shift, scale):
    return (
        torch.nn.functional.layer_norm(x, (WIDTH,), eps=1e-6) * (1 + scale[:, None])
        + shift[:, None]
    )


class Twin(torch.nn.Module):
    """The forward pass of arXiv 2212.09748, from a dictionary of the published names."""

    def __init__(self, weights):
        super().__init__()
        self.weights = {name: torch.from_numpy(array) for name, array in weights.items()}

    def linear(self, name, x):
        return torch.nn.functional.linear(
            x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        )

    def condition(self, times, labels):
        frequencies = torch.exp(-math.log(10_000) * torch.arange(128) / 128)
        angles = times[:, None] * frequencies
        waves = torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)
        hidden = torch.nn.functional.silu(self.linear("t_embedder.mlp.0", waves))
        table = self.weights["y_embedder.embedding_table.weight"]
        return self.linear("t_embedder.mlp.2", hidden) + table[labels]

    def block(self, name, x, condition):
        six = self.linear(f"{name}.adaLN_modulation.1", condition).chunk(6, dim=1)
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = six
        batch, length, _ = x.shape
        qkv = self.linear(f"{name}.attn.qkv", modulated(x, shift, scale))
        q, k, v = qkv.reshape(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(WIDTH // HEADS), dim=-1)
        mixed = (weights @ v).transpose(1, 2).reshape(batch, length, WIDTH)
        x = x + gate[:, None] * self.linear(f"{name}.attn.proj", mixed)
        hidden = self.linear(f"{name}.mlp.fc1", modulated(x, shift_mlp, scale_mlp))
        hidden = torch.nn.functional.gelu(hidden, approximate="tanh")
        return x + gate_mlp[:, None] * self.linear(f"{name}.mlp.fc2", hidden)

    def forward(self, images, times, labels):
        """(N, C, H, W) images to (N, 2 C, H, W)."""
        x = torch.nn.functional.conv2d(
            images,
            self.weights["x_embedder.proj.weight"],
            self.weights["x_embedder.proj.bias"],
            stride=PATCH,
        )
        rows = x.shape[2]
        x = x.flatten(2).transpose(1, 2) + self.weights["pos_embed"]
        condition = torch.nn.functional.silu(self.condition(times, labels))
        for i in range(DEPTH):
            x = self.block(f"blocks.{i}", x, condition)
        shift, scale = self.linear("final_layer.adaLN_modulation.1", condition).chunk(2, dim=1)
        x = self.linear("final_layer.linear", modulated(x, shift, scale))
        x = x.reshape(len(x), rows, rows, PATCH, PATCH, 2 * CHANNELS)
        x = torch.einsum("nhwpqc->nchpwq", x)
        return x.reshape(len(x), 2 * CHANNELS, rows * PATCH, rows * PATCH)


def position_table():
    """The published table, row by row: sines and cosines of the column, then of the row."""
    quarter = WIDTH // 4
    rows = []
    for row in range(SIDE // PATCH):
        for column in range(SIDE // PATCH):
            parts = []
            for place in (column, row):
                angles = [place / 10_000 ** (i / quarter) for i in range(quarter)]
                parts += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            rows.append(parts)
    return np.asarray(rows, np.float32)[None]


@pytest.fixture(scope="module")
def published():
    """Random weights by the published names."""
    rng = np.random.default_rng(0)

    def layer(name, outputs, inputs):
        scale = 0.7 / math.sqrt(np.prod(np.atleast_1d(inputs)))
        shape = (outputs, *np.atleast_1d(inputs))
        return {
            f"{name}.weight": (scale * rng.normal(size=shape)).astype(np.float32),
            f"{name}.bias": (0.1 * rng.normal(size=outputs)).astype(np.float32),
        }

    weights = {
        "pos_embed": position_table(),
        "y_embedder.embedding_table.weight": rng.normal(size=(CLASSES + 1, WIDTH)).astype(
            np.float32
        ),
        **layer("x_embedder.proj", WIDTH, (CHANNELS, PATCH, PATCH)),
        **layer("t_embedder.mlp.0", WIDTH, 256),
        **layer("t_embedder.mlp.2", WIDTH, WIDTH),
        **layer("final_layer.linear", PATCH * PATCH * 2 * CHANNELS, WIDTH),
        **layer("final_layer.adaLN_modulation.1", 2 * WIDTH, WIDTH),
    }
    for i in range(DEPTH):
        weights |= layer(f"blocks.{i}.attn.qkv", 3 * WIDTH, WIDTH)
        weights |= layer(f"blocks.{i}.attn.proj", WIDTH, WIDTH)
        weights |= layer(f"blocks.{i}.mlp.fc1", 4 * WIDTH, WIDTH)
        weights |= layer(f"blocks.{i}.mlp.fc2", WIDTH, 4 * WIDTH)
        weights |= layer(f"blocks.{i}.adaLN_modulation.1", 6 * WIDTH, WIDTH)
    return weights


def as_diffusers(published):
    """The same weights by the names of diffusers, written out anew."""
    result = {}

    def put(theirs, ours):
        for end in ("weight", "bias"):
            result[f"{theirs}.{end}"] = published[f"{ours}.{end}"]

    put("pos_embed.proj", "x_embedder.proj")
    put("proj_out_1", "final_layer.adaLN_modulation.1")
    put("proj_out_2", "final_layer.linear")
    for i in range(DEPTH):
        block = f"transformer_blocks.{i}"
        for end in ("weight", "bias"):
            parts = np.split(published[f"blocks.{i}.attn.qkv.{end}"], 3)
            for part, array in zip("qkv", parts, strict=True):
                result[f"{block}.attn1.to_{part}.{end}"] = array
        put(f"{block}.attn1.to_out.0", f"blocks.{i}.attn.proj")
        put(f"{block}.ff.net.0.proj", f"blocks.{i}.mlp.fc1")
        put(f"{block}.ff.net.2", f"blocks.{i}.mlp.fc2")
        put(f"{block}.norm1.linear", f"blocks.{i}.adaLN_modulation.1")
        put(f"{block}.norm1.emb.timestep_embedder.linear_1", "t_embedder.mlp.0")
        put(f"{block}.norm1.emb.timestep_embedder.linear_2", "t_embedder.mlp.2")
        result[f"{block}.norm1.emb.class_embedder.embedding_table.weight"] = published[
            "y_embedder.embedding_table.weight"
        ]
    return result


def ours(variables, images, times, labels):
    model = models.DiT(
        patch=PATCH, depth=DEPTH, width=WIDTH, heads=HEADS, classes=CLASSES, learned_variance=True
    )
    return model.apply(variables, jnp.asarray(images), jnp.asarray(times), jnp.asarray(labels))


@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_forward_passes_agree(published, layout, tmp_path):
    arrays = published if layout == "original" else as_diffusers(published)
    file = tmp_path / "weights.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, file)
    variables = foreign.dit_variables(foreign.read_arrays(file))
    rng = np.random.default_rng(1)
    images = rng.normal(size=(5, SIDE, SIDE, CHANNELS)).astype(np.float32)
    times = np.array([0, 1, 250, 777, 999], np.float32)
    labels = np.array([0, 3, 5, 6, 1])
    with torch.no_grad():
        expected = Twin(published)(
            torch.from_numpy(images.transpose(0, 3, 1, 2)),
            torch.from_numpy(times),
            torch.from_numpy(labels),
        ).numpy()
    got = ours(variables, images, times, labels)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(np.transpose(got, (0, 3, 1, 2)), expected, atol=1e-4, rtol=1e-4)


def test_there_and_back_is_the_identity(published):
    variables = foreign.dit_variables(published)
    back = foreign.to_torch(variables, foreign.dit_original(DEPTH, CHANNELS))
    assert back.keys() == published.keys() - {"pos_embed"}
    for name, array in back.items():
        np.testing.assert_array_equal(array, published[name])


def test_mistakes_are_named(published):
    missing = {name: a for name, a in published.items() if name != "blocks.2.attn.proj.bias"}
    with pytest.raises(ValueError, match=r"blocks\.2\.attn\.proj\.bias"):
        foreign.dit_variables(missing)
    theirs = as_diffusers(published)
    with pytest.raises(ValueError, match=r"not expected \['norm\.weight'\]"):
        foreign.dit_variables({**theirs, "norm.weight": np.zeros(3)})
    name = "transformer_blocks.1.norm1.emb.class_embedder.embedding_table.weight"
    with pytest.raises(ValueError, match="to equal that of the first block"):
        foreign.dit_variables({**theirs, name: theirs[name] + 1})
    theirs.pop("transformer_blocks.0.attn1.to_k.weight")
    with pytest.raises(ValueError, match=r"missing 'transformer_blocks\.0\.attn1\.to_k\.weight'"):
        foreign.dit_variables(theirs)


def test_published_sizes_have_every_name_once():
    entries = foreign.dit_original()
    model = models.dit("XL/2")
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 4)), jnp.zeros(1), jnp.zeros(1, int)
    )
    assert len(entries) == len(jax.tree.leaves(shapes))
