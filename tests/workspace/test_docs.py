"""The generated pages say what the source says."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tunewright import check
from tunewright.kinds import kinds
from workspace.members import ROOT, script


def test_pages_are_up_to_date(capsys) -> None:
    assert script("make_docs").main(["--check"]) == 0, capsys.readouterr().out


def test_commands_and_events_are_up_to_date() -> None:
    # other tests add to the command line
    command = [
        sys.executable,
        ROOT / "scripts/make_reference.py",
        "--check",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_errors_are_up_to_date(capsys) -> None:
    assert script("make_errors").main(["--check"]) == 0, capsys.readouterr().out


def test_every_hook_stands_in_the_reference_with_its_kind() -> None:
    page = (ROOT / "docs/reference/hooks.md").read_text("utf-8")
    for kind in kinds().values():
        for hook in kind.hooks:
            section = page.partition(f"### {hook}\n")[2].partition("\n### ")[0]
            assert f"Kind: {kind.name}." in section
            assert hook in vars(importlib.import_module(kind.specs))


PAGES = [
    ROOT / name
    for name in (
        "README.md",
        "README.zh-CN.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "contrib/README.md",
    )
]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
every_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix()
)


@every_page
def test_links_and_named_paths_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    missing = [link for link in links if not (page.parent / link).exists()]
    named = re.findall(r"`((?:tests|plugins|kernel|scripts|docs)/[\w./-]+)`", text)
    missing += [path for path in named if not (ROOT / path).exists()]
    assert missing == []


@every_page
def test_links_to_headings_lead_to_one(page: Path) -> None:
    """mkdocs asks this of the pages of its site; here of all."""
    links = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text("utf-8"))
    targets = [(page.parent / file if file else page, heading) for file, heading in links]
    assert [
        (file.name, heading) for file, heading in targets if heading not in headings(file)
    ] == []


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub and mkdocs make them of headings, or as the page says:
    `## Title {#anchor}`."""
    found = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    said = {match[1] for heading in found if (match := re.search(r"\{#([\w-]+)\}$", heading))}
    return said | {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found
    }


def test_the_commands_of_contributing_are_verbs() -> None:
    (block,) = re.findall(
        r"```sh\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.DOTALL
    )
    verbs = re.findall(r"^make (\w+) ", block, re.MULTILINE)
    assert verbs == ["fix", "check", "test"]
    targets = re.findall(r"^([\w ]+):$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)[
        0
    ].split()
    assert set(verbs) <= set(targets) <= set(script("dev").VERBS)


def test_every_promise_of_security_names_its_test() -> None:
    """The existence of the file is checked for all named paths."""
    promises = (
        (ROOT / "SECURITY.md")
        .read_text("utf-8")
        .partition("## What is promised")[2]
        .partition("\n## ")[0]
    )
    rows = [line.split(" | ") for line in promises.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 10
    assert [row[0] for row in rows if "`tests/" not in row[-1]] == []


def test_contrib_lists_what_it_holds_with_its_owner_and_reason() -> None:
    contrib = ROOT / "contrib"
    folders = {
        file.parent.relative_to(contrib).as_posix() for file in contrib.glob("*/*/pyproject.toml")
    }
    listed = re.findall(r"^\| \[(.+?)\]", (contrib / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(folders)
    for folder in folders:
        owner, why = (contrib / folder / "README.md").read_text("utf-8").splitlines()[:2]
        assert re.match(r"OWNER: \S", owner) and re.match(r"WHY: \S", why)


def test_the_readmes_recipe_is_good(tmp_path: Path) -> None:
    (recipe,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    tmp_path.joinpath("recipe.yaml").write_text(recipe, "utf-8")
    tmp_path.joinpath("data").mkdir()
    tmp_path.joinpath("data/support.jsonl").write_text('{"messages": []}\n', "utf-8")
    # named here, because it is found from the checkpoint, which would be fetched
    checked = check.resolve(tmp_path / "recipe.yaml", ["family=qwen"]).recipe
    assert (checked.adapter.name, checked.training.epochs) == ("lora", 1)


#: what the environment or the machine lacks
CANNOT_RUN_HERE = re.compile(
    r"the library \S+ is not installed|which is not installed here|needs an NVIDIA GPU"
)


@pytest.mark.parametrize(
    "recipe", sorted((ROOT / "docs/examples").rglob("*.yaml")), ids=lambda recipe: recipe.name
)
def test_the_examples_recipes_are_good(recipe: Path) -> None:
    wrong: list[str] = []
    try:
        check.resolve(recipe)
    except check.RecipeProblems as problems:
        wrong = problems.lines
    if recipe.parent.name in ("loggers", "quantizers"):
        wrong = [line for line in wrong if not CANNOT_RUN_HERE.search(line)]
    assert wrong == []
    up = "../" * (len(recipe.relative_to(ROOT / "docs/examples").parts) - 1)
    first = recipe.read_text("utf-8").partition("\n")[0]
    assert first == f"# yaml-language-server: $schema={up}recipe.schema.json"


def test_the_readmes_two_commands_are_verbs_of_dev() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    commands = re.findall(r"```sh\npython3 scripts/dev.py (\w+)\n```", readme)
    assert commands == ["quickstart", "test"]
    assert set(commands) <= set(script("dev").VERBS)
