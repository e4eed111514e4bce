"""Every text of the pages that is translated."""

import ast
from pathlib import Path

import jinja2

import tunewright_web
from tunewright import registry
from tunewright.kinds import kinds
from tunewright_web.form import all_fields, installed
from tunewright_web.pages import NAVIGATION
from tunewright_web.plugin_form import plugin_form

PACKAGE = Path(tunewright_web.__file__).parent
#: texts that templates make of names
NAMES = {
    *("true", "false", "base", "chat"),
    *("weights", "gradients", "optimizer", "activations", "logits", "overhead"),
    *("queued", "running", "stopping", "completed", "interrupted", "failed", "lost", "cancelled"),
}


def of_templates() -> set[str]:
    """Constants that templates give to `_`."""
    found = set()
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=True)
    for file in sorted(PACKAGE.glob("templates/**/*.jinja")):
        tree = environment.parse(file.read_text("utf-8"))
        for call in tree.find_all(jinja2.nodes.Call):
            is_ours = isinstance(call.node, jinja2.nodes.Name) and call.node.name == "_"
            for given in call.args if is_ours else ():
                found |= {each.value for each in _constants(given)}
    return found


def _constants(given: jinja2.nodes.Node) -> list[jinja2.nodes.Const]:
    if isinstance(given, jinja2.nodes.Const):
        return [given]
    if isinstance(given, jinja2.nodes.CondExpr):
        return [*_constants(given.expr1), *_constants(given.expr2 or given.expr1)]
    return []


def of_code() -> set[str]:
    """Constants that the code gives to `_`, or to `words_of(request)`."""
    found = set()
    for file in sorted(PACKAGE.rglob("*.py")):
        for call in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(call, ast.Call) or not call.args:
                continue
            named = isinstance(call.func, ast.Name) and call.func.id in ("_", "words", "translate")
            made = isinstance(call.func, ast.Call) and ast.unparse(call.func).startswith(
                "words_of("
            )
            text = call.args[0]
            if (named or made) and isinstance(text, ast.Constant) and isinstance(text.value, str):
                found.add(text.value)
    return found


def of_options() -> set[str]:
    """Labels and descriptions of all options, sections and kinds."""
    form, found = installed(), set()
    for field in all_fields(form):
        found |= {field.label, field.help, field.unit}
    for section in form.sections.values():
        found |= {section.help, section.key[:1].upper() + section.key[1:]}
    for kind in kinds().values():
        found.add(kind.summary)
        if kind.name not in ("command", "panel"):
            for entry in registry.entries(kind.name):
                found |= of_plugin(entry)
    return found - {""}


def of_plugin(entry: registry.Entry) -> set[str]:
    """Descriptions of the options of a plugin, as its page shows them."""
    from tunewright.descriptions import described

    try:
        plugin = registry.load(entry)
        options = plugin.Options
    except Exception:  # one that is broken has no page
        return set()
    found = {" ".join(text.split()) for text in described(options).values()}
    if entry.kind in ("exporter", "evaluator"):  # which have a form on a page of their own
        fields = plugin_form(entry.name, plugin).fields
        found |= {text for field in fields for text in (field.label, field.unit)}
        found.add(" ".join((plugin.__doc__ or "").split()))
    return found


def everything() -> set[str]:
    from tunewright_web.wizard import STEPS

    pages = {entry.label for entry in NAVIGATION}
    return of_templates() | of_code() | of_options() | pages | {*STEPS.values()} | NAMES
