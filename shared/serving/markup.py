"""The parts of the page that are HTML: what is loaded, labels and scores, reasons, progress.

Everything that a user or a file brings is escaped (Jinja2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

    from shared.taggers.tagger import Tagger

# Colours are those of the theme, so that the page follows the light or dark mode of the browser.
STYLE = """
.gradio-container { max-width: 72rem !important; margin: 0 auto !important; }
.gradio-container .html-container { padding: .2rem 0 !important; }
.tagger-part h1 { font-size: 1.6rem; margin: .2rem 0; overflow-wrap: anywhere; }
.tagger-part ul { padding-left: 1.2rem; list-style: disc; }
.tagger-part .note { color: color-mix(in srgb, var(--body-text-color) 70%, transparent); }
.tagger-part .chosen { font-size: 1.1rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
.tagger-part .wide { overflow-x: auto; contain: inline-size; }
.tagger-part table { width: 100%; border-collapse: collapse; margin: .5rem 0 1rem; }
.tagger-part caption { text-align: left; font-weight: 600; padding: .2rem 0; }
.tagger-part table, .tagger-part table tr { border: 0; }
.tagger-part table th, .tagger-part table td { padding: .35rem .3rem; text-align: left;
  vertical-align: top; border: 0; border-bottom: 1px solid var(--border-color-primary); }
.tagger-part table .number { text-align: right; font-variant-numeric: tabular-nums; }
.tagger-part table .text { overflow-wrap: anywhere; }
.tagger-part .error { font-weight: 600; overflow-wrap: anywhere;
  border-left: .25rem solid var(--error-border-color); padding-left: .6rem; }
.tagger-part tbody th { font-weight: 400; }
.tagger-part .word { display: inline-block; margin: 0 .3rem .3rem 0; padding: .05rem .45rem;
  border: 1px solid var(--border-color-primary); border-radius: .3rem; overflow-wrap: anywhere;
  background: color-mix(in srgb, var(--color-accent) calc(35% * var(--share)), transparent); }
.tagger-part .word small { font-variant-numeric: tabular-nums; }
.tagger-part tr.applies th { font-weight: 700; }
.tagger-part .bar { position: relative; height: .4rem; margin-top: .3rem; border-radius: .2rem;
  background: var(--border-color-primary); }
.tagger-part .bar .score { height: 100%; border-radius: .2rem; min-width: 1px;
  background: var(--body-text-color-subdued); }
.tagger-part tr.applies .bar .score { background: var(--color-accent); }
.tagger-part .bar .threshold { position: absolute; top: -.15rem; bottom: -.15rem; width: 2px;
  background: var(--body-text-color); }
@media (max-width: 30rem) {
  .gradio-container .main { padding: 1rem !important; }
  .tagger-part table { font-size: .85rem; }
}
.tagger-part progress { width: 100%; height: 1rem; accent-color: var(--color-accent); }
"""

_TEMPLATES = {
    "about": """
<div class="tagger-part"><h1>Which labels does a text get?</h1>
{% if taggers|length > 1 %}<p>The mean of {{ taggers|length }} taggers:</p>{% endif %}
<ul>{% for line in taggers %}<li>{{ line }}</li>{% endfor %}</ul></div>""",
    "tags": """
<div class="tagger-part">
<p class="chosen">{% if chosen %}Labels: <strong>{{ chosen|join(", ") }}</strong>
{%- else %}No label: no score reaches its threshold.{% endif %}</p>
{% if confidence is not none %}<p>{{ "Unsure: all" if unsure else "All" }} labels are right with
probability {{ "%.2f"|format(confidence) }}.</p>
{% endif %}<div class="wide"><table><caption>{{ rule }}</caption>
<thead><tr><th scope="col">Label</th><th scope="col" class="number">Score</th>
{%- if with_thresholds %}<th scope="col" class="number">Threshold</th>{% endif -%}
<th scope="col">Applies</th></tr></thead>
<tbody>{% for row in rows %}
<tr{% if row.reason %} class="applies"{% endif %}><th scope="row">{{ row.label }}
<div class="bar" aria-hidden="true"><div class="score" style="width: {{ 100 * row.score }}%"></div>
{%- if with_thresholds and row.threshold <= 1 %}
<div class="threshold" style="left: {{ 100 * row.threshold }}%"></div>{% endif -%}
</div></th><td class="number">{{ "%.3f"|format(row.score) }}</td>
{%- if with_thresholds %}<td class="number">
{{- "%.3f"|format(row.threshold) if row.threshold <= 1 else "never" }}</td>{% endif -%}
<td>{{ row.reason or "no" }}</td></tr>{% endfor %}
</tbody></table></div>
{% if n_hidden %}<p class="note">{{ n_hidden }} more with lower scores.</p>
{% endif %}</div>""",
    "reasons": """
<div class="tagger-part">{% if words %}<div class="wide"><table>
<caption>Words that weigh most, with what each adds to the logit of the label</caption>
<thead><tr><th scope="col">Label</th><th scope="col">Words</th></tr></thead>
<tbody>{% for label, pairs in words.items() %}<tr><th scope="row">{{ label }}</th>
<td>{% for word, weight in pairs %}<span class="word" style="--share: {{ weight / heaviest }}">
{{- word }} <small>{{ "%.2f"|format(weight) }}</small></span>
{% else %}none{% endfor %}</td></tr>{% endfor %}
</tbody></table></div>{% endif %}
{% if neighbours %}<div class="wide"><table><caption>Nearest labelled texts</caption>
<thead><tr><th scope="col">Text</th><th scope="col">Labels</th>
<th scope="col" class="number">Cosine</th></tr></thead>
<tbody>{% for text in neighbours %}<tr><td class="text">
{%- if text.text is defined %}{{ text.text }} <span class="note">(row {{ text.row }})</span>
{%- else %}training text {{ text.number }}{% endif %}</td>
<td>{{ text.labels|join(", ") or "none" }}</td>
<td class="number">{{ "%.3f"|format(text.cosine) }}</td></tr>{% endfor %}
</tbody></table></div>{% endif %}</div>""",
    "error": """
<div class="tagger-part"><p class="error" role="alert">{{ line }}</p></div>""",
    "progress": """
<div class="tagger-part"><p role="status">{{ line }}</p>
{% if share is not none %}<progress value="{{ share }}" aria-label="tagged rows"></progress>
{% endif %}</div>""",
}


def about_html(taggers: Sequence[str]) -> str:
    """Return the head of the page.

    Parameters
    ----------
    taggers : sequence of str
        A line about each tagger.
    """
    return _render("about", taggers=taggers)


def tags_html(record: Mapping[str, Any], tagger: Tagger) -> str:
    """Return the labels of a text, its scores with their thresholds, and why a label applies.

    Parameters
    ----------
    record : mapping
        From `Tagger.tag`.
    tagger : Tagger
    """
    names, rule, chosen = tagger.label_names, tagger.calibrated_rule, record["labels"]
    thresholds = dict(zip(names, rule.thresholds, strict=False))  # there may be none
    rank = "" if rule.top_k is None else "best" if rule.top_k == 1 else f"{rule.top_k} best"

    def reason(label: str, score: float) -> str:
        if label not in chosen:
            return ""
        if rank and not thresholds:
            return "as best label" if rule.top_k == 1 else f"as one of {rank}"
        # Scores of a record are rounded, so that one at its threshold may be shown below it. The
        # best label is that before calibration, which need not have the highest score here.
        only_best = rule.at_least_one and score < thresholds[label] - 1e-6
        return "as best label" if only_best else "by threshold"

    rows = [
        {"label": label, "score": score, "threshold": thresholds.get(label)}
        | {"reason": reason(label, score)}
        for label, score in record["scores"].items()
    ]
    rule_line = "A label applies if its score reaches its threshold."
    if rank:
        number = "label applies" if rule.top_k == 1 else "labels apply"
        condition = "if the score reaches the threshold" if thresholds else "whatever the scores"
        rule_line = f"The {rank} {number}, {condition}."
    elif rule.at_least_one:
        rule_line = "A label applies if its score reaches its threshold; the best one always does."
    return _render(
        "tags",
        chosen=chosen,
        confidence=record.get("confidence"),
        unsure=record.get("unsure"),
        rows=rows,
        rule=rule_line,
        with_thresholds=bool(thresholds),
        n_hidden=len(names) - len(rows),
    )


def reasons_html(explanation: Mapping[str, Any]) -> str:
    """Return the words that weigh most for each label of a text, and the nearest labelled texts.

    Parameters
    ----------
    explanation : mapping
        From an `Explainer`; what it lacks is left out.
    """
    words, neighbours = explanation.get("words"), explanation.get("neighbours")
    heaviest = max((weight for pairs in (words or {}).values() for _, weight in pairs), default=1)
    return _render("reasons", words=words, heaviest=heaviest, neighbours=neighbours)


def error_html(line: str) -> str:
    """Return a line that says why something was not done."""
    return _render("error", line=line)


def progress_html(line: str, share: float | None = None) -> str:
    """Return a line about a file, with a bar if a share from 0 to 1 of it is done."""
    return _render("progress", line=line, share=share)


def _render(name: str, **values: Any) -> str:
    return _environment().get_template(name).render(values).strip()


@cache
def _environment() -> Environment:
    from jinja2 import DictLoader, Environment, StrictUndefined

    return Environment(loader=DictLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
