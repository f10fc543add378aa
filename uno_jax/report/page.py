"""One HTML page that needs no other file, for a screen, a phone and paper."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import jinja2

Tone = Literal["good", "fair", "bad"]


class Banner(NamedTuple):
    """What the reader shall see first.

    Attributes:
      heading: a few words.
      sentence: what they mean.
      tone: `"good"`, `"fair"` or `"bad"`: the colour, beside the words.
    """

    heading: str
    sentence: str
    tone: Tone


class Section(NamedTuple):
    """A part of the page.

    Attributes:
      title: its heading.
      paragraphs: in plain words.
      rows: a table; columns in the order of their first appearance. A cell that begins with
        ✓ or ✗ is coloured.
      figures: caption to PNG file; the caption is the alternative text too.
    """

    title: str
    paragraphs: Sequence[str] = ()
    rows: Sequence[Mapping[str, str]] = ()
    figures: Mapping[str, str | Path] = {}


SENTENCE = 24
"""Characters from which a cell without numbers in front is one."""
_TEMPLATE = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
    """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title }}</title>
<style>
  :root { --ink: #1d232a; --soft: #56606b; --line: #d5dae0; --paper: #fff; --wash: #f4f6f8;
          --good: #1b6e3c; --fair: #8a5a00; --bad: #a3201d; }
  @media (prefers-color-scheme: dark) {
    :root { --ink: #e6e9ed; --soft: #a3adb8; --line: #3a424b; --paper: #15191e; --wash: #1f252c;
            --good: #6fce94; --fair: #e5b557; --bad: #ff8a80; }
    figure img { background: #fff; border-radius: 4px; }
  }
  * { box-sizing: border-box; }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto;
         padding: 0 1rem; color: var(--ink); background: var(--paper); }
  h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
  p { max-width: 60rem; }
  img { max-width: 100%; height: auto; }
  .banner { border-left: .5rem solid; padding: .6rem 1rem; background: var(--wash);
            margin: 1.5rem 0; }
  .banner strong { display: block; font-size: 1.5rem; line-height: 1.3; }
  .banner p { margin: .3rem 0 0; color: var(--ink); }
  .good { color: var(--good); } .fair { color: var(--fair); } .bad { color: var(--bad); }
  .wide { overflow-x: auto; }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; }
  th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right;
           vertical-align: top; }
  th { color: var(--soft); font-weight: 600; }
  th:first-child, td:first-child { text-align: left; }
  .words { text-align: left; min-width: 14rem; }
  td.good, td.bad { white-space: nowrap; }
  figure { margin: 1.5rem 0; } figcaption { color: var(--soft); max-width: 60rem; }
  pre { background: var(--wash); padding: .6rem; overflow-x: auto; white-space: pre-wrap; }
  @media print {
    :root { --ink: #000; --soft: #333; --line: #999; --paper: #fff; --wash: #fff;
            --good: #0a5a2a; --fair: #6b4600; --bad: #8c1512; }
    body { margin: 0; max-width: none; font-size: 10pt; }
    .wide { overflow: visible; } table { font-size: 8pt; }
    figure, tr, .banner { break-inside: avoid; } h2 { break-after: avoid; }
  }
</style>
{% macro table(rows) %}
{% set columns = columns_of(rows) %}{% set words = words_of(rows) %}
<div class="wide"><table>
<thead><tr>{% for name in columns %}<th scope="col"
{%- if name in words %} class="words"{% endif %}>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}
<tr>{% for name in columns %}{% set cell = row.get(name, "") %}<td
{%- if cell.startswith("✓") %} class="good"{% elif cell.startswith("✗") %} class="bad"
{%- elif name in words %} class="words"{% endif %}>{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table></div>
{% endmacro %}
{% macro pictures(figures) %}
{% for caption, file in figures.items() %}
<figure><img alt="{{ caption }}" src="data:image/png;base64,{{ encoded(file) }}">
<figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
{% endmacro %}
<h1>{{ title }}</h1>
{% if banner %}<div class="banner {{ banner.tone }}" role="status"><strong>{{ banner.heading }}
</strong><p>{{ banner.sentence }}</p></div>{% endif %}
{% for text in summary %}<p>{{ text }}</p>
{% endfor %}
{% if rows %}{{ table(rows) }}{% endif %}
{{ pictures(figures) }}
{% for section in sections %}
<section><h2>{{ section.title }}</h2>
{% for text in section.paragraphs %}<p>{{ text }}</p>
{% endfor %}
{% if section.rows %}{{ table(section.rows) }}{% endif %}
{{ pictures(section.figures) }}
</section>
{% endfor %}
<h2>How this was made</h2>
<pre>{% for key, value in facts.items() %}{{ key }}: {{ value }}
{% endfor %}</pre>
</html>
"""
)


def _words_of(rows) -> set[str]:
    """Columns of sentences, which start at the left as text does."""
    cells = [(name, cell) for row in rows for name, cell in row.items()]
    numbers = {name for name, cell in cells if cell[:1].isdigit()}
    return {name for name, cell in cells if len(cell) > SENTENCE} - numbers


def write_page(
    path: str | Path,
    *,
    title: str,
    summary: Sequence[str],
    rows: Sequence[Mapping[str, str]] = (),
    figures: Mapping[str, str | Path] | None = None,
    facts: Mapping[str, object],
    banner: Banner | None = None,
    sections: Sequence[Section] = (),
) -> Path:
    """Writes a report as one HTML file with its pictures inside.

    Args:
      path: the file to write.
      title: heading of the page.
      summary: paragraphs in plain words, before the table.
      rows: the table; columns in the order of their first appearance.
      figures: caption to PNG file.
      facts: command, versions, hardware, seeds.
      banner: what the reader shall see first.
      sections: further parts, after the figures.

    Returns:
      The path.
    """
    path = Path(path)
    text = _TEMPLATE.render(
        title=title,
        banner=banner,
        summary=summary,
        rows=rows,
        figures=figures or {},
        sections=sections,
        facts=facts,
        columns_of=lambda rows: list(dict.fromkeys(name for row in rows for name in row)),
        words_of=_words_of,
        encoded=lambda file: base64.b64encode(Path(file).read_bytes()).decode(),
    )
    path.write_text(text, encoding="utf-8")
    return path
