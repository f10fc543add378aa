"""One HTML page that needs no other file."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2

_TEMPLATE = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
    """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto;
         padding: 0 1rem; color: #222; background: #fff; }
  img { max-width: 100%; height: auto; }
  .wide { overflow-x: auto; }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
  th, td { padding: .3rem .8rem; border-bottom: 1px solid #ccc; text-align: right; }
  th:first-child, td:first-child { text-align: left; }
  figure { margin: 1.5rem 0; } figcaption { color: #555; max-width: 60rem; }
  pre { background: #f4f4f4; padding: .6rem; overflow-x: auto; }
</style>
<h1>{{ title }}</h1>
{% for text in summary %}<p>{{ text }}</p>
{% endfor %}
<div class="wide"><table>
<thead><tr>{% for name in columns %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}
<tr>{% for name in columns %}<td>{{ row.get(name, "") }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table></div>
{% for caption, data in images %}
<figure><img alt="{{ caption }}" src="data:image/png;base64,{{ data }}">
<figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
<h2>How this was made</h2>
<pre>{% for key, value in facts.items() %}{{ key }}: {{ value }}
{% endfor %}</pre>
</html>
"""
)


def write_page(
    path: str | Path,
    *,
    title: str,
    summary: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    figures: Mapping[str, str | Path],
    facts: Mapping[str, object],
) -> Path:
    """Writes a report as one HTML file with its pictures inside.

    Args:
      path: the file to write.
      title: heading of the page.
      summary: paragraphs in plain words, before the table.
      rows: the table; columns in the order of their first appearance.
      figures: caption to PNG file.
      facts: command, versions, hardware, seeds.

    Returns:
      The path.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    images = [
        (caption, base64.b64encode(Path(file).read_bytes()).decode())
        for caption, file in figures.items()
    ]
    path = Path(path)
    path.write_text(
        _TEMPLATE.render(
            title=title, summary=summary, rows=rows, columns=columns, images=images, facts=facts
        ),
        encoding="utf-8",
    )
    return path
