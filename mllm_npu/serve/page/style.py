"""How the page looks: system fonts, calm colours, room to breathe, and one column on a phone."""

from __future__ import annotations

import gradio as gr

LOOK_AGAIN_SECONDS = 5.0
"""How often a page asks which models there are."""
FONTS = ("system-ui", "-apple-system", "Segoe UI", "PingFang SC", "Microsoft YaHei", "sans-serif")
CODE_FONTS = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E"
    "%3Crect width='32' height='32' rx='8' fill='%23326b8a'/%3E"
    "%3Cpath d='M8 22V10l8 8 8-8v12' fill='none' stroke='%23fff' stroke-width='3' "
    "stroke-linejoin='round' stroke-linecap='round'/%3E%3C/svg%3E"
)

CSS = """
.gradio-container { max-width: none !important; }
.gradio-container > .main { width: 100% !important; max-width: 1120px !important;
  margin: 0 auto !important; padding: 10px 16px 24px !important; }
.gradio-container .wrap { gap: 10px; }
footer { display: none !important; }

#top { align-items: center; flex-wrap: nowrap; gap: 16px; }
#heading { flex: 1 1 auto; min-width: 0; padding: 0; }
#model { flex: 0 1 240px; padding: 0; border: 0; background: none; }
#top .form { background: none; border: 0; box-shadow: none; }
#notice, .quiet { padding: 0 !important; min-height: 0 !important; }
#notice:not(:has(.notice)), .quiet:not(:has(.notice)) { display: none !important; }
.heading { display: flex; justify-content: space-between; align-items: center; gap: 16px; }
.heading h1 { font-size: 1.25rem; font-weight: 650; margin: 0; letter-spacing: -.01em; }
.heading p { margin: 2px 0 0; color: var(--body-text-color-subdued); font-size: .875rem; }
.heading nav { display: flex; gap: 2px; font-size: .875rem; white-space: nowrap; }
.heading nav > * { padding: 4px 10px; border-radius: 999px; font-weight: 500; text-decoration: none;
  color: var(--body-text-color-subdued); }
.heading nav b { background: var(--background-fill-secondary); color: var(--body-text-color); }
.heading nav a:hover { color: var(--body-text-color); text-decoration: underline; }

.notice { padding: 8px 12px; border-radius: 8px; font-size: .9rem; line-height: 1.45;
  overflow-wrap: anywhere; white-space: pre-wrap; }
.notice.failure { background: #fdecea; color: #8c1d18; border: 1px solid #f4c7c3; }
.notice.hint { padding: 2px 0; color: var(--body-text-color-subdued); }
.dark .notice.failure { background: #3a1715; color: #ffb4ab; border-color: #6b2b26; }

.chat .plain { white-space: pre-wrap; overflow-wrap: anywhere; }
.chat .formatted { white-space: normal; overflow-wrap: anywhere; line-height: 1.55; }
.chat .formatted > :first-child { margin-top: 0; }
.chat .formatted > :last-child { margin-bottom: 0; }
.chat .formatted p, .chat .formatted ul, .chat .formatted ol { margin: 0 0 .6em; }
.chat .formatted ul, .chat .formatted ol { padding-left: 1.4em; }
.chat .formatted ul { list-style: disc; }
.chat .formatted ol { list-style: decimal; }
.chat .formatted h1, .chat .formatted h2, .chat .formatted h3 { font-size: 1.05em; font-weight: 650;
  margin: .6em 0 .3em; }
.chat .formatted code { font-family: var(--font-mono); font-size: .9em; padding: 1px 4px;
  border-radius: 4px; background: var(--background-fill-secondary); }
.chat .formatted pre { overflow-x: auto; padding: 10px 12px; border-radius: 8px; margin: 0 0 .6em;
  background: var(--background-fill-secondary); }
.chat .formatted pre code { padding: 0; background: none; white-space: pre; }
.chat .formatted table { border-collapse: collapse; display: block; overflow-x: auto; }
.chat .formatted td, .chat .formatted th { border: 1px solid var(--border-color-primary);
  padding: 4px 8px; }
.chat .formatted a { text-decoration: underline; }
.chat .formatted blockquote { border-left: 3px solid var(--border-color-primary); margin: 0 0 .6em;
  padding-left: 10px; color: var(--body-text-color-subdued); }

.waiting { display: inline-flex; align-items: center; gap: 10px; font-size: .9rem;
  color: var(--body-text-color-subdued); }
.dots { display: inline-flex; gap: 4px; }
.dots i { width: 6px; height: 6px; border-radius: 50%; background: currentColor; opacity: .35;
  animation: breathe 1.2s infinite; }
.dots i:nth-child(2) { animation-delay: .2s; }
.dots i:nth-child(3) { animation-delay: .4s; }
@keyframes breathe { 40% { opacity: 1; } }
@media (prefers-reduced-motion: reduce) { .dots i { animation: none; } }

.buttons { gap: 8px !important; flex-wrap: wrap !important; }
.buttons > button { flex: 0 0 auto !important; width: auto !important; }
.buttons > button:disabled { background: var(--background-fill-secondary) !important;
  color: var(--body-text-color-subdued) !important; opacity: .7; }

.results .grid-wrap { max-height: none !important; }
.submit-button { background: var(--button-primary-background-fill) !important;
  color: var(--button-primary-text-color) !important; }

/* Clearing has a button of its own; sharing would send pictures elsewhere. */
.chat > .wrapper > .icon-button-wrapper, .chat .message-buttons-right,
.chat .message-buttons .download-link ~ button { display: none !important; }
.chat .user-row:has(.component) + .message-buttons { margin: 0; }
.chat .user img { max-height: 132px; width: auto; }
.chat .bot img { max-height: 340px; width: auto; }
.chat .bot:has(.notice.failure) { background: #fdecea; border-color: #f4c7c3; }
.dark .chat .bot:has(.notice.failure) { background: #3a1715; border-color: #6b2b26; }
.chat .notice.failure { background: none; border: 0; padding: 2px 0; }
.results img { max-height: 70vh; }
#edit-picture img { min-height: 150px; object-fit: contain; }

@media (max-width: 640px) {
  .gradio-container { padding: 0 10px !important; }
  #top { flex-wrap: wrap; gap: 8px; }
  #top > *, #model { flex: 1 1 100% !important; max-width: none !important; }
  .heading p { display: none; }
  .chats { flex-direction: column; }
}
"""


def make_theme() -> gr.themes.Base:
    """Gradio's plain theme with system fonts: none is fetched."""
    return gr.themes.Default(
        primary_hue=gr.themes.colors.cyan,
        neutral_hue=gr.themes.colors.gray,
        radius_size=gr.themes.sizes.radius_lg,
        font=FONTS,
        font_mono=CODE_FONTS,
    )
