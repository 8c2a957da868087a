"""The style of pages: light and dark, narrow screens, and paper."""

from __future__ import annotations

from collections.abc import Mapping

from schedhook.cli.output.charts import Tone
from schedhook.cli.output.palette import DARK, FAINT, INK, LIGHT, LINE


def tone_class(tone: Tone) -> str:
    """Return the class of what a tone colours."""
    return tone.name.lower()


def _variables(page: str, ink: str, faint: str, line: str, tones: Mapping[Tone, str]) -> str:
    named = {"page": page, "ink": ink, "faint": faint, "line": line}
    named |= {tone_class(tone): colour for tone, colour in tones.items()}
    return "".join(f"--{name}:{colour};" for name, colour in named.items())


_LIGHT = _variables("#fff", INK, FAINT, LINE, LIGHT)
_DARK = _variables("#14181d", "#e4e7eb", "#9aa5b1", "#39424d", DARK)
_TONES = "".join(f".{tone_class(t)}{{--tone:var(--{tone_class(t)})}}" for t in Tone)

STYLE = f"""
:root{{{_LIGHT}}}
@media screen and (prefers-color-scheme:dark){{:root{{{_DARK}}}}}
{_TONES}
*{{box-sizing:border-box}}
html{{font:15px/1.45 system-ui,sans-serif}}
body{{color:var(--ink);background:var(--page);
 max-width:76rem;margin:0 auto;padding:1.5rem;overflow-wrap:anywhere}}
h1{{font-size:1.5rem;margin:0 0 .3rem}}h2{{font-size:1.15rem;margin:2.2rem 0 .6rem}}
h3{{font-size:1rem;margin:1.6rem 0 .4rem}}
p{{margin:.3rem 0;max-width:60rem}}.fact,.note{{color:var(--faint)}}
code{{font-family:ui-monospace,monospace;font-size:.93em}}
.figures{{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:1rem;
 margin:1.2rem 0;padding:.9rem 0;border:solid var(--line);border-width:1px 0}}
.figures dt{{color:var(--faint)}}.figures dd{{margin:0}}.figures .value{{font-size:1.35rem}}
.legend{{display:flex;flex-wrap:wrap;gap:.2rem 1.4rem;margin:.4rem 0}}
.swatch{{width:.9rem;height:.9rem;margin-right:.4rem;vertical-align:-.1rem}}
.swatch rect,.bar rect{{fill:var(--tone)}}
figure{{margin:.6rem 0 1.2rem}}figcaption{{font-weight:600}}
.bar{{display:grid;grid-template-columns:11rem 1fr 5.5rem 17rem;gap:0 .8rem;align-items:center;
 padding:.12rem 0;break-inside:avoid}}
.bar svg{{display:block;width:100%;height:.95rem}}.bar line{{stroke:var(--line)}}
.bar .size,.n{{text-align:right;font-variant-numeric:tabular-nums}}
.bar .note{{font-size:.87rem}}
.axis svg{{height:1.3rem}}.axis text{{fill:var(--faint);font-size:.8rem}}
table{{border-collapse:collapse;width:100%;margin:.6rem 0 1rem}}
caption{{text-align:left;font-weight:600}}
th,td{{text-align:left;vertical-align:top;padding:.25rem 1.3rem .25rem 0;white-space:nowrap;
 border-bottom:1px solid var(--line)}}
th:last-child,td:last-child{{padding-right:0}}.long{{white-space:normal}}
th{{color:var(--faint);font-weight:500}}th.n{{text-align:right}}
tr{{break-inside:avoid}}
.matrix section{{border-bottom:1px solid var(--line);padding:.4rem 0;break-inside:avoid}}
.matrix h4{{font:inherit;font-weight:600;margin:0}}
.matrix ul{{list-style:none;margin:0;padding:0;display:grid;
 grid-template-columns:repeat(auto-fill,minmax(10.2rem,1fr));gap:.2rem .8rem}}
.matrix .node{{color:var(--faint)}}.matrix .part{{display:block;
 border-left:.25rem solid var(--tone,transparent);padding-left:.4rem;margin-bottom:.1rem}}
@media screen and (max-width:52rem){{
 body{{padding:1rem}}
 .bar{{grid-template-columns:1fr auto;padding:.3rem 0}}
 .bar svg{{grid-column:1/-1;grid-row:2}}.bar .note{{grid-column:1/-1}}
 .bar .note:empty{{display:none}}
 table,tbody,tr,td,caption{{display:block}}thead{{display:none}}
 tr{{border-bottom:1px solid var(--line);padding:.4rem 0}}
 td{{display:grid;grid-template-columns:9rem 1fr;gap:.6rem;border:0;padding:.05rem 0}}
 td,td.n{{text-align:left;white-space:normal}}
 td:empty{{display:none}}
 td::before{{content:attr(data-title);color:var(--faint)}}
}}
@media print{{
 html{{font-size:10px}}body{{padding:0;max-width:none;print-color-adjust:exact}}
 th,td{{padding-right:.8rem}}
 .bar{{grid-template-columns:8rem 1fr 4.5rem 12rem}}h2,h3,h4,figcaption{{break-after:avoid}}
}}
"""
