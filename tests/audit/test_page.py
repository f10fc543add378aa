"""The report is whole in itself, says everything in words, and looks right in a browser."""

import importlib.metadata
import re
import shutil
import subprocess
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest

from tests.audit import mixture
from uno_jax import audit, report

VOID = {"meta", "img", "br", "hr", "link"}


class Reader(HTMLParser):
    """What a page has in it, and whether each tag is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.images, self.links, self.headings = [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        values = dict(attrs)
        self.links += [v for k, v in values.items() if k in ("src", "href")]
        if tag == "img":
            self.images.append(values)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)


def pictures(level, count, seed):
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(level, 0.2, (count, 8, 8)), 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """An audit of files of pictures, bright ones to be forgotten."""
    folder = tmp_path_factory.mktemp("audit")
    sides = {"retain": 0.2, "forget": 0.8, "retain_held_out": 0.2, "forget_held_out": 0.8}
    for seed, (name, level) in enumerate(sides.items()):
        np.savez(folder / f"{name}.npz", images=pictures(level, 100, seed))
    mixed = np.concatenate([pictures(0.2, 100, 8), pictures(0.8, 100, 9)])
    np.savez(folder / "before.npz", samples=mixed)
    np.savez(folder / "after.npz", samples=pictures(0.2, 200, 10))
    arguments = [f"--{name.replace('_', '-')}={folder / name}.npz" for name in
                 (*sides, "before", "after")]  # fmt: skip
    return folder, arguments


def command(arguments, out):
    from uno_jax.audit.__main__ import main

    return main([*arguments, f"--out={out}", "--settings.judge-steps=60"])


def test_the_command_audits_files(audited, tmp_path, capsys):
    folder, arguments = audited
    assert command(arguments, tmp_path) == 0
    said = capsys.readouterr().out
    assert said.startswith("verdict: forgotten") and "not measured: losses" in said
    # The other way round nothing is forgotten, and the exit status says so.
    turned = [
        a.replace("after.npz", "x.npz").replace("before.npz", "before.npz") for a in arguments
    ]
    shutil.copy(folder / "before.npz", folder / "x.npz")
    assert command(turned, tmp_path / "again") == 1
    assert "verdict: not forgotten" in capsys.readouterr().out


def test_it_is_installed_as_a_command():
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="uno-audit")
    from uno_jax.audit.__main__ import entry

    assert script.load() is entry


def test_the_command_says_what_is_missing(audited, tmp_path, capsys):
    _, arguments = audited
    assert command(arguments[:2], tmp_path) == 2
    assert "error: expected --case, or npz files for all of before, after" in (
        capsys.readouterr().err
    )
    assert command([*arguments[:-1], "--after=gone.npz"], tmp_path) == 2
    assert "gone.npz: expected an npz file with images, got no such file" in capsys.readouterr().err
    assert command(["--case=tests.audit.mixture:nobody"], tmp_path) == 2
    assert "case: expected MODULE:FUNCTION" in capsys.readouterr().err


def test_the_command_takes_a_function_that_makes_the_case(tmp_path, monkeypatch):
    from uno_jax.audit import __main__ as command_line

    options = command_line.Options(case="tests.audit.mixture:case")
    assert command_line.make_case(options).model is mixture.MODEL


def test_the_page_needs_nothing_else_and_says_it_in_words(tmp_path):
    case = mixture.case(
        mixture.params(logits=mixture.without(-9.0)), steps=5,
        cost={"seconds": 2.0, "retraining_seconds": 60.0},
    )  # fmt: skip
    found = audit.run(case, settings=mixture.SETTINGS, out=tmp_path)
    text = (tmp_path / "audit.html").read_text()
    reader = Reader()
    reader.feed(text)
    assert not reader.open or reader.open == ["html"]
    assert all(link.startswith("data:") for link in reader.links)
    assert reader.images and all(len(image["alt"]) > 20 for image in reader.images)
    for heading in ("The criteria", "Membership", "Relearning", "Cost", "Not measured"):
        assert heading in reader.headings
    assert found.verdict.sentence in text.replace("&#39;", "'")
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    assert re.search(r"retraining over method, seconds</td>\s*<td>30<", text)
    # Every criterion has its number on the page.
    for criterion in found.verdict.criteria:
        assert criterion.name in text
    # Colour never stands alone.
    assert text.count("✓ met") == sum(c.passed for c in found.verdict.criteria)


def test_columns_of_sentences_start_at_the_left(tmp_path):
    rows = [
        {"what": "a", "interval": "40.00% [34.62%, 45.64%]", "why": "a reason in many words, too"},
        {"what": "b", "interval": "none", "why": "short"},
    ]
    page = report.write_page(tmp_path / "p.html", title="t", summary=[], rows=rows, facts={})
    text = page.read_text()
    assert text.count('class="words"') == 3 and '<td class="words">short' in text


@pytest.mark.parametrize("tone", ["good", "fair", "bad"])
def test_text_is_dark_enough_on_its_ground(tone):
    text = report.page._TEMPLATE.render(
        title="", banner=None, summary=[], rows=[], figures={}, sections=[], facts={},
        columns_of=list, words_of=set, encoded=str,
    )  # fmt: skip
    for scheme in text.split(":root {")[1:4]:
        colours = dict(re.findall(r"--(\w+): (#\w+)", scheme.split("}")[0]))
        for paper in ("paper", "wash"):
            assert contrast(colours[tone], colours[paper]) >= 4.5
            assert contrast(colours["soft"], colours[paper]) >= 4.5


def contrast(a, b):
    """The ratio of the Web Content Accessibility Guidelines 2.2."""

    def luminance(colour):
        digits = colour.lstrip("#")
        digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
        parts = np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_without_scrolling_sideways(audited, tmp_path, width):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("needs Debian's chromium, which is not installed")
    _, arguments = audited
    command(arguments, tmp_path)
    shot = tmp_path / "shot.png"
    subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--window-size={width},2000", f"--screenshot={shot}", str(tmp_path / "audit.html")],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    pixels = matplotlib.image.imread(shot)[..., :3]
    assert pixels.shape[1] == width
    # Something is drawn on the upper part, and the right edge is empty.
    assert pixels[:600].std() > 0.02 and pixels[:, -4:].std() < 0.02
