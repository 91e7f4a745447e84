"""Templates compile once a process, escaping and Markdown apart."""

from jinja2 import Environment

from tradsys.reports.templates import template_environment

NAME = "base.html.j2"


def test_a_second_page_compiles_nothing(monkeypatch):
    first = template_environment().get_template(NAME)
    monkeypatch.setattr(Environment, "compile", None)
    again = template_environment().get_template(NAME)
    assert again is not first
    assert set(again.blocks) == set(first.blocks)


def test_what_escapes_and_what_does_not_are_compiled_apart():
    pages = []
    for html in (True, False, True):
        environment = template_environment(html=html)
        environment.loader.get_source = lambda _, name: ("{{ x }}", name, lambda: True)
        pages.append(environment.get_template("page").render(x="<b>"))
    assert pages == ["&lt;b&gt;", "<b>", "&lt;b&gt;"]


def test_a_changed_template_is_compiled_again():
    shown = []
    for text in ("a {{ x }}", "b {{ x }}"):
        environment = template_environment()
        environment.loader.get_source = lambda _, name, text=text: (text, name, lambda: True)
        shown.append(environment.get_template("page").render(x=1))
    assert shown == ["a 1", "b 1"]
