"""Changes of a draft that are more than one text: another plugin, a row removed."""

from collections.abc import Mapping

from tunewright_web.form import Form, Section


def changed(form: Form, texts: Mapping[str, str], typed: Mapping[str, str]) -> dict[str, str]:
    """The texts with what was typed. Where another plugin was chosen, options that only the one
    before has are dropped; options that both have stay."""
    found = dict(texts)
    for name, text in typed.items():
        text = text.replace("\r\n", "\n")
        found.pop(name, None)
        if text.strip():
            found[name] = text
    for prefix, section in _chosen(form, {**texts, **found}):
        before, now = (_plugin(section, each.get(f"{prefix}.name", "")) for each in (texts, found))
        if before == now:
            continue
        old, new = _options(section, before), _options(section, now)
        for name in [name for name in found if name.startswith(f"{prefix}.")]:
            key = name.removeprefix(f"{prefix}.").partition(".")[0]
            if key in old - new:
                del found[name]
    return found


def without(texts: Mapping[str, str], row: str) -> dict[str, str]:
    """The texts without a row such as `data.1`; those after it move up."""
    name, _, number = row.rpartition(".")
    if not name or not number.isdecimal():
        return dict(texts)
    found = {}
    for key, text in texts.items():
        rest = key.removeprefix(f"{name}.") if key.startswith(f"{name}.") else ""
        index, dot, inner = rest.partition(".")
        if not index.isdecimal() or int(index) < int(number):
            found[key] = text
        elif int(index) > int(number):
            found[f"{name}.{int(index) - 1}{dot}{inner}"] = text
    return found


def rows(texts: Mapping[str, str], name: str) -> int:
    """Number of rows of a list that have a text."""
    found = [0]
    for key in texts:
        if key.startswith(f"{name}."):
            index = key.removeprefix(f"{name}.").partition(".")[0]
            found.append(int(index) + 1 if index.isdecimal() and len(index) < 5 else 0)
    return max(found)


def _chosen(form: Form, texts: Mapping[str, str]) -> list[tuple[str, Section]]:
    """Prefix and section of every choice of a plugin."""
    found = []
    for key, section in form.sections.items():
        if section.many:
            found += [(f"{key}.{index}", section) for index in range(rows(texts, key))]
        else:
            found.append((key, section))
    return found


def _plugin(section: Section, name: str) -> str:
    return name or (section.defaults[0] if section.defaults and not section.many else "")


def _options(section: Section, name: str) -> set[str]:
    plugin = section.chosen(name)
    return {field.key for field in plugin.fields} if plugin else set()
