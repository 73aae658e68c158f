"""How the page looks, and the little that runs in the browser: the slider, light and dark.

Nothing comes from another host: fonts are the system's. It refuses to know what is shown.
"""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr


def theme() -> Any:
    """Gradio's own colours with the system's fonts."""
    system = ("system-ui", "sans-serif")
    found = gr.themes.Default(
        primary_hue="teal",
        secondary_hue="teal",
        font=system,
        font_mono=("ui-monospace", "monospace"),
    )
    # Gradio's grays of hints and white on light teal are below the contrast that WCAG asks for.
    return found.set(
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
    )


CSS = """
.gradio-container { width: 100%; max-width: 1200px !important; margin: 0 auto !important; }
#title h1 { margin: 0; } #title p { margin: 0; }
#head { align-items: center; flex-wrap: nowrap; } #dark { flex: 0 0 auto; min-width: 8rem; }
.plan { list-style: none; display: flex; flex-wrap: wrap; gap: .4rem; padding: 0; margin: 0; }
.plan li { margin: 0; padding: .15rem .6rem; border-radius: 1rem; background: var(--background-fill-secondary);
  border: 1px solid var(--border-color-primary); }
.error { padding: .6rem .8rem; border-left: 4px solid #c0262d; background: var(--background-fill-secondary);
  overflow-wrap: anywhere; }
.note { opacity: .85; }
.progress progress, #batch-table progress { width: 100%; height: .8rem; accent-color: var(--primary-600); }
.preview { display: block; width: 100%; max-height: 60vh; object-fit: contain; margin-top: .5rem; }
.compare { margin: 0; }
.compare .view { overflow: auto; max-height: 75vh; background: var(--background-fill-secondary);
  border-radius: 6px; }
.compare .stage { position: relative; margin: 0 auto; touch-action: pan-y; }
.compare .stage img { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; max-width: none;
  user-select: none; -webkit-user-drag: none; }
.compare .bar { position: absolute; top: 0; bottom: 0; width: 2px; background: #fff; box-shadow: 0 0 3px #000; }
.compare .tools { display: flex; gap: .5rem; align-items: center; margin-top: .5rem; flex-wrap: wrap; }
.compare .tools label { flex: 1 1 9rem; min-width: 0; display: flex; gap: .5rem; align-items: center; }
.compare input[type=range] { flex: 1; min-width: 2rem; accent-color: var(--primary-600); }
.compare button, a.download { padding: .4rem .9rem; border-radius: 6px;
  border: 1px solid var(--border-color-primary);
  background: var(--button-secondary-background-fill); color: var(--body-text-color); cursor: pointer; }
a.download { display: inline-block; background: var(--primary-700); color: #fff !important;
  text-decoration: none; font-weight: 600; }
.compare button[aria-pressed=true] { outline: 2px solid var(--primary-600); }
.compare.alone .bar, .compare.alone label { display: none; }
.report table, .report tr, .items, .items tr { border: 0 !important; }
.report table, .items { border-collapse: collapse; width: 100%; }
.report th, .report td, .items th, .items td { text-align: left; border: 0; padding: .25rem .6rem;
  border-bottom: 1px solid var(--border-color-primary); overflow-wrap: anywhere; }
.items th, .state { overflow-wrap: normal; white-space: nowrap; } .items td:first-child { min-width: 7rem; }
.scrolled { max-height: 24rem; overflow: auto; }
.state.succeeded { color: var(--primary-600); } .state.failed { color: #c0262d; }
.dark .state.failed { color: #ff8a8a; } .dark .state.succeeded { color: var(--primary-300); }
@media (max-width: 600px) { #dark { min-width: 0; } .gradio-container { padding: 8px !important; } }
"""

HEAD = """
<script>
(() => {
  const place = (figure) => {
    const view = figure.querySelector('.view'), stage = figure.querySelector('.stage');
    const share = figure.querySelector('input[type=range]').value / 100;
    const wide = Math.min(view.clientWidth, stage.clientWidth);
    const x = figure.classList.contains('alone') ? 0 : view.scrollLeft + share * wide;
    figure.querySelector('.after').style.clipPath = `inset(0 0 0 ${x}px)`;
    figure.querySelector('.bar').style.left = `${x - 1}px`;
  };
  const zoom = (figure, full) => {
    const stage = figure.querySelector('.stage');
    const width = full ? `${stage.dataset.width / devicePixelRatio}px`
      : `min(100%, calc(75vh * ${stage.dataset.width / stage.dataset.height}))`;
    stage.style.width = width;
    figure.querySelectorAll('button').forEach((button) =>
      button.setAttribute('aria-pressed', String((button.dataset.zoom === 'full') === full)));
    place(figure);
  };
  const all = (run) => document.querySelectorAll('figure.compare').forEach(run);
  document.addEventListener('input', (event) => {
    const figure = event.target.closest?.('figure.compare');
    if (figure) place(figure);
  });
  document.addEventListener('click', (event) => {
    const button = event.target.closest?.('figure.compare button');
    if (button) zoom(button.closest('figure'), button.dataset.zoom === 'full');
  });
  document.addEventListener('pointermove', (event) => {
    const stage = event.buttons === 1 && event.target.closest?.('figure.compare .stage');
    if (!stage) return;
    const figure = stage.closest('figure'), view = figure.querySelector('.view');
    const wide = Math.min(view.clientWidth, stage.clientWidth);
    const left = Math.max(view.getBoundingClientRect().left, stage.getBoundingClientRect().left);
    figure.querySelector('input[type=range]').value = 100 * (event.clientX - left) / wide;
    place(figure);
  });
  document.addEventListener('scroll', (event) => {
    const figure = event.target.closest?.('figure.compare');
    if (figure) place(figure);
  }, true);
  document.addEventListener('error', (event) => {
    const figure = event.target.closest?.('figure.compare');
    if (!figure) return;
    if (event.target.classList.contains('before')) { figure.classList.add('alone'); place(figure); }
    else figure.querySelector('.unseen').hidden = false;
  }, true);
  document.addEventListener('load', (event) => {
    const figure = event.target.closest?.('figure.compare');
    if (figure) place(figure);
  }, true);
  addEventListener('resize', () => all(place));
  const saved = localStorage.getItem('tessera-dark');
  if (saved) addEventListener('load', () => document.body.classList.toggle('dark', saved === '1'));
})();
</script>
"""

TOGGLE_DARK = """() => {
  const dark = document.body.classList.toggle('dark');
  localStorage.setItem('tessera-dark', dark ? '1' : '0');
}"""


def compare(before_url: str, after_url: str, height: int, width: int) -> str:
    """The slider: source under result, at the page's width or at 100 %.

    Args:
        before_url: The source; a browser that cannot show it shows the result alone. May be empty.
        after_url: The result.
        height: Of the result, px.
        width: Of the result, px.
    """
    alone = "" if before_url else " alone"
    before = f'<img class="before" alt="Before" src="{escape(before_url)}">' if before_url else ""
    fit = f"min(100%, calc(75vh * {width / height:.4f}))"
    style = f"width: {fit}; aspect-ratio: {width} / {height}"
    clip = "inset(0 0 0 50%)" if before_url else "none"
    return (
        f'<figure class="compare{alone}" aria-label="Before and after">'
        f'<div class="view" tabindex="0" role="region" aria-label="Result, can be scrolled at 100 %">'
        f'<div class="stage" data-width="{width}" data-height="{height}" style="{style}">{before}'
        f'<img class="after" alt="After" src="{escape(after_url)}" style="clip-path: {clip}">'
        f'<span class="bar" style="left: 50%"></span></div></div>'
        f'<p class="unseen" hidden>This browser does not show the chosen format; the download has it.</p>'
        f'<div class="tools"><label>Before <input type="range" min="0" max="100" value="50" step="0.5" '
        f'aria-label="Where before ends and after begins"> After</label>'
        f'<button type="button" data-zoom="fit" aria-pressed="true">Fit</button>'
        f'<button type="button" data-zoom="full" aria-pressed="false">100 %</button></div></figure>'
    )
