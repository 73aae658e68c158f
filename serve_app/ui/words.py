"""What the page says, as HTML: plans, progress, reports, errors. Pure functions of records.

It refuses to know Gradio and where records come from. Everything from outside is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from serve_app.errors import TesseraError
from serve_app.ui.backend import Item, Job, Plan, Result

_WELL_DB, _FAIR_DB = 40, 32
"""Scaled down again, a difference below which nobody sees one, and above which most do."""
_SEEN_COLOR = 2.3
"""CIEDE2000 of a just noticeable difference, rounded as usual."""
_SEAM = 1.1


def seconds(value: float) -> str:
    """A time as a person says it: `8 s`, `3 min`, `1.5 h`."""
    if value < 90:
        return f"{max(1, round(value))} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"


def plan_words(plan: Plan) -> str:
    """What a picture will cost, in one line of facts."""
    facts = [
        f"{plan.source_width} &times; {plan.source_height} → <b>{plan.width} &times; {plan.height} px</b>",
        f"{plan.tiles} tile{'s' * (plan.tiles != 1)}",
        f"{plan.steps} step{'s' * (plan.steps != 1)} each",
    ]
    if plan.frames > 1:
        facts.append(f"{plan.frames} frames")
    if plan.estimated_s is None:
        facts.append("time not known before the first picture")
    else:
        facts.append(f"about {seconds(plan.estimated_s)}")
    if plan.queue_position:
        waits = plan.queue_position
        facts.append(f"{waits} picture{'s wait' if waits != 1 else ' waits'} before it")
    elif plan.queue_position == 0:
        facts.append("nobody waits before it")
    spans = "".join(f"<li>{fact}</li>" for fact in facts)
    return f'<ul class="plan" role="status" aria-label="Plan">{spans}</ul>'


def progress_words(
    stage: str,
    done: int = 0,
    total: int = 0,
    eta_s: float | None = None,
    preview: bytes | None = None,
) -> str:
    """How far a picture is, with what is to be seen of it."""
    told = escape(stage)
    if total:
        told = f"{told}: {done} of {total} tiles"
    if eta_s is not None:
        told = f"{told}, about {seconds(eta_s)} left"
    value = f' value="{done}" max="{total}"' if total else ""
    bar = f'<progress aria-label="Progress"{value}></progress>'
    shown = ""
    if preview:
        data = base64.b64encode(preview).decode()
        shown = f'<img class="preview" alt="Tiles so far" src="data:image/jpeg;base64,{data}">'
    return f'<div class="progress"><p role="status">{told}</p>{bar}{shown}</div>'


def error_words(error: TesseraError | Mapping[str, Any]) -> str:
    """An error in words, with the request's id where there is one."""
    if isinstance(error, TesseraError):
        title, detail, request_id = error.title, error.detail, None
    else:
        title = str(error.get("title") or "It failed")
        detail = str(error.get("detail") or "")
        request_id = error.get("request_id")
    told = f"<b>{escape(title)}.</b> {escape(detail)}"
    if request_id and str(request_id) not in detail:
        told += f" (request {escape(str(request_id))})"
    return f'<div class="error" role="alert">{told}</div>'


def note(text: str) -> str:
    """A sentence to the person."""
    return f'<p class="note" role="status">{escape(text)}</p>'


def report_words(result: Result) -> str:
    """How true a result is to its source, in words and numbers, and how it was made."""
    details = result.details
    report, params = details.get("report") or {}, details.get("params") or {}
    sentences, rows = _judged(report), _numbers(report)
    took = (details.get("timings_s") or {}).get("total") or sum(
        (details.get("timings_s") or {}).values()
    )
    rows += [
        ("Size", f"{result.width} x {result.height} px, {result.size_bytes / 2**20:.1f} MiB"),
        ("Seed", str(params.get("seed", ""))),
        ("Model", str(params.get("model", ""))),
        ("Tiles", str(details.get("tiles", ""))),
        ("Time", f"{took:.1f} s"),
    ]
    told = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    cells = "".join(
        f'<tr><th scope="row">{escape(a)}</th><td>{escape(b)}</td></tr>' for a, b in rows if b
    )
    return (
        f'<section class="report" aria-label="Fidelity report"><h3>How true it is</h3>'
        f"<ul>{told}</ul><table>{cells}</table></section>"
    )


def _judged(report: Mapping[str, Any]) -> list[str]:
    if not report:
        return ["There is no report for this result."]
    psnr, color = report["lr_psnr_db"], report["color_error_mean"]
    if psnr >= _WELL_DB:
        said = "Scaled down again, it is the source: nobody sees a difference."
    elif psnr >= _FAIR_DB:
        said = "Scaled down again, it is close to the source."
    else:
        said = "Scaled down again, it differs visibly from the source."
    seen = "below" if color < _SEEN_COLOR else "above"
    seams = "Where tiles meet, there is no seam."
    if report["seam_energy"] > _SEAM:
        seams = "Where tiles meet, edges are stronger than in the source."
    told = [said, f"Colours differ by an amount {seen} what eyes notice.", seams]
    if report.get("tiles_replaced"):
        told.append(f"{report['tiles_replaced']} tiles failed; the plain resize stands there.")
    return told + list(report.get("warnings", ()))


def _numbers(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not report:
        return []
    faces = [("Faces that were spared", str(report["faces"]))] if report.get("faces") else []
    return [
        ("PSNR, scaled down", f"{report['lr_psnr_db']:.1f} dB"),
        (
            "Colour error (CIEDE2000)",
            f"{report['color_error_mean']:.2f}, 99 % below {report['color_error_p99']:.2f}",
        ),
        ("Edge difference (GMSD)", f"{report['edge_agreement']:.4f}"),
        ("Seam energy", f"{report['seam_energy']:.2f}"),
        ("Tied to the source", f"{report['fidelity']:.2f}"),
        ("Noise of the source", f"{report['noise']:.3f}"),
        *faces,
    ]


def items_table(job: Job, items: Sequence[Item]) -> str:
    """A job's pictures and their states."""
    counts = job.counts
    parts = [
        f"{counts[s]} {s}"
        for s in ("succeeded", "running", "queued", "failed", "cancelled")
        if counts.get(s)
    ]
    head = f"Job {escape(job.id)}: {escape(', '.join(parts) or job.status)}"
    rows = "".join(_row(item) for item in items)
    total = counts.get("total", 0)
    done = total - counts.get("queued", 0) - counts.get("running", 0)
    return (
        f'<p role="status">{head}</p>'
        f'<progress aria-label="Pictures done" value="{done}" max="{max(1, total)}"></progress>'
        '<div class="scrolled" tabindex="0" role="region" aria-label="Pictures">'
        '<table class="items"><thead><tr>'
        '<th scope="col">Picture</th><th scope="col">State</th><th scope="col">Result</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(item: Item) -> str:
    told = ""
    if item.result:
        told = f"{item.result.width} &times; {item.result.height}"
    elif item.error:
        told = escape(str(item.error.get("detail") or item.error.get("title") or ""))
    elif item.tiles_total:
        told = f"{item.tiles_done} of {item.tiles_total} tiles"
    state = escape(item.status)
    return (
        f'<tr><td>{escape(item.name)}</td><td><span class="state {state}">{state}</span></td>'
        f"<td>{told}</td></tr>"
    )


def link(url: str, text: str, name: str) -> str:
    """A file to be downloaded under a name."""
    return f'<a class="download" href="{escape(url)}" download="{escape(name)}">{escape(text)}</a>'
