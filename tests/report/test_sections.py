"""Sections of one kind are one file: what it returns stands on every page, made harmless."""

from report_fixture import report as example_report

from edgekit.report import sections
from edgekit.report.html import render_html
from edgekit.report.markdown import render_markdown
from edgekit.report.section import Section


def weight(report):
    rows = (("lens|cap", "3"), ("body", f"{report['model']}"))
    return [Section("Weight", "In <grams>.", ("part", "mass"), rows)]


def test_a_section_is_one_file(monkeypatch):
    monkeypatch.setattr(sections, "SECTIONS", (*sections.SECTIONS, weight))
    report = example_report()
    page, text = render_html(report), render_markdown(report)
    assert "<h2>Weight</h2><p>In &lt;grams&gt;.</p>" in page and '<td class="num">3</td>' in page
    assert "## Weight" in text and "| lens\\|cap | 3 |" in text and "In &lt;grams>." in text


def test_nothing_is_said_of_a_model_that_was_not_changed():
    assert sections.sections(example_report()) == []
