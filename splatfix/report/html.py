"""Fill templates to self-contained HTML pages, and decide where a page is written."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

import splatfix
from splatfix.evaluation.error_maps import ERROR_MAX, error_legend
from splatfix.evaluation.results import ARM_MEANINGS
from splatfix.report import wording
from splatfix.report.svg import band_key, key

MIN_SECTIONS = 3  # a shorter page needs no list of contents


def render_page(template: str, context: dict[str, Any]) -> str:
    """Fill a template; every value is escaped unless it is `Markup`."""
    return _add_contents(_environment().get_template(template).render(context))


def _add_contents(page: str) -> str:
    """List the sections of a page below its header, with links to them."""
    sections = re.findall(r'<section id="([\w-]+)"[^>]*>\s*<h2>([^<]+)</h2>', page)
    if len(sections) < MIN_SECTIONS:
        return page
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title in sections)
    nav = f'</header>\n<nav class="contents" aria-label="Contents"><ul>{links}</ul></nav>'
    return page.replace("</header>", nav, 1)


def page_path(out: str | Path | None, run: Path, name: str) -> Path:
    """Where a page is written.

    Args:
        out: an HTML file, or the folder to write the page into; None writes it into the folder of the run.
        run: the folder of the run.
        name: of the page in a folder.
    """
    if out is None:
        return Path(run) / name
    return Path(out) if Path(out).suffix.lower() in (".html", ".htm") else Path(out) / name


@lru_cache(maxsize=1)
def _environment() -> Environment:
    """The templates, with what all pages use."""
    environment = Environment(
        loader=PackageLoader("splatfix.report", "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        version=splatfix.__version__,
        meanings=ARM_MEANINGS,
        legend=error_legend(),
        error_max=ERROR_MAX,
        PSNR=wording.PSNR,
        key=key,
        band_key=band_key,
        gain_of=wording.view_gain,
    )
    environment.filters.update(
        format_number=wording.format_number,
        format_duration=wording.format_duration,
        format_count=wording.format_count,
    )
    return environment
