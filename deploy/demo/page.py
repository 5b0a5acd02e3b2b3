"""`report.html`: the demo on one page, without a script, an outside font or a link to anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from deploy.demo import chart
from deploy.demo.closing import record, sentence
from deploy.demo.report import REFUSALS
from deploy.demo.troubles import TROUBLES

STYLE = Path(__file__).with_name("page.css")


def page(plain: Mapping[str, Any]) -> str:
    """The whole page out of the plain report."""
    parts = [
        _head(plain),
        _picture(plain.get("picture") or {}),
        _learnt(plain),
        _stayed_and_left(plain),
        _refused(plain),
        _lost(plain),
        _logs(plain),
    ]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; style-src '
        "'unsafe-inline'\">\n"
        f"<title>Cloister: what the demo did</title>\n<style>\n{STYLE.read_text('utf-8')}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def names_of(plain: Mapping[str, Any]) -> dict[str, str]:
    """What a person calls each hospital: its name and what it sees."""
    return {node["name"]: f"{node['name']} ({node['kind']})" for node in plain["nodes"]}


def _head(plain: Mapping[str, Any]) -> str:
    failures = plain["failures"]
    verdict = (
        '<p class="verdict good">Every promise was kept.</p>'
        if not failures
        else f'<div class="verdict bad"><p>Not every promise was kept:</p>{_list(failures)}</div>'
    )
    return f"""<header>
<p class="brand">Cloister · demo</p>
<h1>The model travels. The images stay.</h1>
<p class="lead">{escape(sentence(plain))}</p>
{verdict}
</header>"""


def _picture(picture: Mapping[str, Any]) -> str:
    if not picture:
        return ""
    rows = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td>{escape(before)}</td>"
        f"<td>{escape(after) or '<span class=gone>removed</span>'}</td></tr>"
        for name, before, after in picture["header"]
    )
    before, after = (f"data:image/png;base64,{picture[when]}" for when in ("before", "after"))
    return f"""<section aria-labelledby="gate0">
<h2 id="gate0">A picture before and after</h2>
<p>Nobody’s ultrasound, with a name burned into its pixels. The real gate found the text and blacked it out, and wrote
the header anew: what no rule keeps is not in it.</p>
<div class="pair">
<figure><img alt="Ultrasound picture; a name and a birth date stand at its top" src="{before}">
<figcaption>in the archive</figcaption></figure>
<figure><img alt="The same picture; a black bar where the text was" src="{after}">
<figcaption>as researchers’ programs see it</figcaption></figure>
</div>
<div class="wide"><table class="header"><thead><tr><th scope="col">header</th><th scope="col">before</th>
<th scope="col">after</th></tr></thead><tbody>{rows}</tbody></table></div>
</section>"""


def _learnt(plain: Mapping[str, Any]) -> str:
    names = names_of(plain)
    tested = plain["tested"]
    rounds = max((len(curve) for curve in tested.values()), default=0)
    heads = "".join(f"<th scope='col'>{'untrained' if n == 0 else f'round {n}'}</th>" for n in range(rounds))
    rows = "".join(
        f"<tr><th scope='row'>{escape(names.get(name, name))}</th>"
        + "".join(f"<td class='number'>{value:.3f}</td>" for value in curve)
        + "</tr>"
        for name, curve in tested.items()
    )
    own = "".join(
        f"<li><b>{escape(names[node['name']])}</b>: {_auc(node['auc_at_home'])} on its own patients, "
        f"{_auc(node['auc_local_only'])} on everybody’s.</li>"
        for node in plain["nodes"]
    )
    return f"""<section aria-labelledby="learnt">
<h2 id="learnt">Why together</h2>
<p>Each hospital sees one kind of lesion, on one scanner. Alone, its model looks good at home and fails elsewhere:</p>
<ul>{own}</ul>
<figure class="chart">{chart.svg(tested, names)}</figure>
<details open><summary>The same in numbers</summary><div class="wide"><table><thead><tr><th></th>{heads}</tr></thead>
<tbody>{rows}</tbody></table></div></details>
</section>"""


def _stayed_and_left(plain: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{escape(node['name'])}</th><td class='number'>{node['studies_published']}</td>"
        f"<td class='number'>{node['instances']:,}</td><td class='number'>{node['held_out']}</td>"
        f"<td class='number'>{node['bytes_out']:,}</td></tr>"
        for node in plain["nodes"]
    )
    return f"""<section aria-labelledby="left">
<h2 id="left">What stayed, what left</h2>
<div class="wide"><table><thead><tr><th></th><th scope="col">studies that stayed</th><th scope="col">images that
stayed</th><th scope="col">studies kept for testing</th><th scope="col">bytes that left</th></tr></thead>
<tbody>{rows}</tbody></table></div>
<p>What left is model updates, clipped and written anew from parsed numbers, and a few counts and scores. Of
{plain["planted_identifiers"]:,} planted identifiers, <b>{_or_dash(plain["planted_found"])}</b> were found in
{plain["files_searched"]:,} files outside the hospitals’ originals; inside them the same search finds
{plain["planted_found_in_source"]:,}.</p>
</section>"""


def _refused(plain: Mapping[str, Any]) -> str:
    evidence = plain["refusal_evidence"]
    rows = "".join(
        f"<tr><td>{escape(_capital(attack.who))}</td><td>{escape(_capital(attack.otherwise))}</td>"
        f"<td>{_mark(plain['refusals'][name], 'refused', 'not refused')} "
        f"{escape(record(evidence.get(name, {})))}</td></tr>"
        for name, attack in REFUSALS.items()
    )
    return f"""<section aria-labelledby="refused">
<h2 id="refused">Attacks</h2>
<p>Six attempts at what must not be, on the real parts. Nothing on this page decides that one was refused: a record in a
hospital’s own log does, or the alert on the wire.</p>
<div class="wide"><table class="attacks"><thead><tr><th scope="col">who tried</th><th scope="col">what would have
happened</th><th scope="col">what says no</th></tr></thead><tbody>{rows}</tbody></table></div>
</section>"""


def _lost(plain: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{escape(node['name'])}</th><td class='number'>{node['good_in']}</td>"
        f"<td class='number'>{node['good_in'] - node['good_published']}</td>"
        f"<td class='number'>{node['troubles_found']} of {node['troubles']}</td>"
        f"<td>{escape(_reasons(node['excluded']))}</td></tr>"
        for node in plain["nodes"]
    )
    troubles = escape("; ".join(TROUBLES.values()))
    return f"""<section aria-labelledby="lost">
<h2 id="lost">Nothing is lost without a reason</h2>
<p>Among the good studies lie pydicom’s own sample files and, planted at each hospital: {troubles}.
Whatever is not published is counted under a reason.</p>
<div class="wide"><table><thead><tr><th></th><th scope="col">good studies in</th><th scope="col">good studies lost</th>
<th scope="col">troubles found</th><th scope="col">studies not published, and why</th></tr></thead>
<tbody>{rows}</tbody></table></div>
</section>"""


def _logs(plain: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{escape(node['name'])}</th><td class='number'>{node['audit_records']:,}</td>"
        f"<td>{_mark(node['audit_ok'], '✓ whole, signed, witnessed by the hub', '✗ broken')}</td></tr>"
        for node in plain["nodes"]
    )
    return f"""<section aria-labelledby="logs">
<h2 id="logs">The logs</h2>
<div class="wide"><table><thead><tr><th></th><th scope="col">records</th><th scope="col">verified offline</th></tr>
</thead>
<tbody>{rows}</tbody></table></div>
<p class="small">{plain["rounds"]} rounds, {plain["seconds_total"]:.0f} s in all. Everything on this page stands in
<code>demo-report.json</code> beside it.</p>
</section>"""


def _reasons(excluded: Mapping[str, int]) -> str:
    ordered = sorted(excluded.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in ordered) or "none"


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def _mark(good: bool, yes: str = "✓", no: str = "✗") -> str:
    return f'<span class="yes">{yes}</span>' if good else f'<span class="no">{no}</span>'


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _auc(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _or_dash(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
