"""Loggers, formats, templates and commands that do harm in one way each: the suite names the
way."""

import pytest

from conformance_tests.verdict import Subject, Verdict, judge

LOGGER = '''
from tunewright import Plugin, hookimpl


class Subject(Plugin):
    """A logger."""

    @hookimpl
    def report(self, run, event):
        {body}
'''

FORMAT = '''
from tunewright import Format, RowError, hookimpl
from tunewright.types import Conversation, Message


class Subject(Format):
    """Records with a and b."""

    rows = ("messages",)

    @hookimpl
    def convert_rows(self, request):
        for origin, record in {records}:
            try:
                question, answer = record["a"], record["b"]
            except (TypeError, KeyError):
                {bad}
                continue
            messages = [Message("user", question), Message("assistant", answer)]
            yield Conversation(messages, origin={origin})
'''
ERROR = 'yield RowError("has no a and b", place=str(origin))'

TEMPLATE = """\
{#- tunewright
stop = ["<|end|>"]
thinking = ["<think>", "</think>"]
notes = "A template for a test."
[reply]
call = '!(?P<name>\\w+)'
[deviations]
test_golden = "No golden has been made of this template."
-#}
{%- for message in messages %}
    {{- '<|start|>' + message.role + ':' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}
            {{- '<think>' + message.reasoning_content + '</think>' if message.reasoning_content }}
            {{- message.content }}
            {%- for call in message.tool_calls %}
                {{- '!' + call.function.name + call.function.arguments | tojson }}
            {%- endfor %}
            {{- '<|end|>' }}
        {%- endgeneration %}
    {%- else %}
        {{- message.content + '<|end|>' }}
    {%- endif %}
{%- endfor %}
{{- '<|start|>assistant:' if add_generation_prompt }}
"""
TRAINS_THE_PROMPT = '''
from pathlib import Path

from tunewright import hookimpl
from tunewright.types import Span
from tunewright_hf.templates.jinja_template import from_file


class Subject(from_file(Path(__file__).with_name("chat.jinja"))):
    """A template whose spans begin too early."""

    @hookimpl
    def format_template(self, request):
        rendered = super().format_template(request)
        rendered.trained = [Span(span.start - 30, span.end) for span in rendered.trained]
        return rendered
'''
EARLY = "[Span(span.start - 30, span.end) for span in rendered.trained]"
LATE = "rendered.trained + [Span(0, len(rendered.text))] * request.add_generation_prompt"
DEVIATION = TEMPLATE[TEMPLATE.index("[deviations]") : TEMPLATE.index("-#}")]
ACCEPTED = {  # the tests that go through all cases
    "test_trains_the_assistant_only",
    "test_trains_the_stop_token",
    "test_prompt_is_a_prefix",
    "test_prompt_is_not_trained",
    "test_reply_is_parsed_back",
    "test_exported_template_says_the_same",
}

COMMAND = """
def subject() -> None:
    {doc}
    print("done")
{also}
"""


def logger(body: str) -> Subject:
    return Subject("logger", LOGGER.format(body=body))


def a_format(records: str = "request.records", bad: str = ERROR, origin: str = "origin") -> Subject:
    source = FORMAT.format(records=records, bad=bad, origin=origin)
    return Subject(
        "format", source, files={"goldens/{name}.jsonl": '{"a": "question", "b": "answer"}\n'}
    )


def command(name: str, doc: str = '"""Print a word."""', also: str = "") -> Subject:
    return Subject("command", COMMAND.format(doc=doc, also=also), value=f"{name}:subject")


def template(*changes: tuple[str, str], **files: str) -> Subject:
    """The template with some of its text replaced. files: NAME of goldens/NAME → text"""
    text = TEMPLATE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    beside = {f"goldens/{name.replace('_', '.')}": value for name, value in files.items()}
    return Subject("template", "", value="{name}.chat", files={"chat.jinja": text, **beside})


SUBJECTS: dict[str, tuple[Subject, set[str]]] = {
    "quiet": (logger("pass"), set()),
    "raises_at_the_end": (
        logger("assert type(event).__name__ != 'RunFinished'"),
        {
            "test_whole_run",
            "test_resumed_run",
            "test_run_that_fails_early",
            "test_odd_values",
            "test_unknown_event",
        }
        | {"test_writes_into_the_run_folder_only"},
    ),
    "knows_all_events": (
        logger("assert type(event).__module__ == 'tunewright.events', 'what is this?'"),
        {"test_unknown_event"},
    ),
    "wants_numbers": (
        logger("{int(n) for n in getattr(event, 'metrics', {}).values()}"),
        {"test_odd_values"},
    ),
    "litters": (logger("open('log.txt', 'a').close()"), {"test_writes_into_the_run_folder_only"}),
    "sees_stage_first": (
        logger(
            "self.seen = getattr(self, 'seen', 0) or hasattr(event, 'total_steps'); "
            "assert self.seen or"
            " not hasattr(event, 'status')"
        ),
        {"test_run_that_fails_early"},
    ),
    "reads_well": (a_format(), set()),
    "skips_bad": (a_format(bad="pass"), {"test_every_record_gives_one_item", "test_is_lazy"}),
    "raises_bad": (
        a_format(bad=ERROR.replace("yield", "raise")),
        {"test_every_record_gives_one_item", "test_same_records_same_rows", "test_is_lazy"},
    ),
    "no_place": (
        a_format(bad="yield RowError('has no a and b')"),
        {"test_every_record_gives_one_item"},
    ),
    "no_origin": (a_format(origin="None"), {"test_reads_its_samples"}),
    "greedy": (a_format(records="list(request.records)"), {"test_is_lazy"}),
    "plain_chat": (template(), set()),
    "trains_the_prompt": (
        Subject("template", TRAINS_THE_PROMPT, files={"chat.jinja": TEMPLATE}),
        {
            "test_trains_the_assistant_only",
            "test_prompt_is_a_prefix",
            "test_weights",
            "test_reply_is_parsed_back",
        },
    ),
    "trains_the_question": (
        Subject("template", TRAINS_THE_PROMPT.replace(EARLY, LATE), files={"chat.jinja": TEMPLATE}),
        {"test_prompt_is_not_trained"},
    ),
    "trains_the_role": (
        template(
            ("{{- '<|start|>' + message.role + ':' }}", ""),
            ("{{- '<think>'", "{{- '<|start|>assistant:' }}{{- '<think>'"),
            (
                "{{- message.content + '<",
                "{{- '<|start|>' + message.role + ':' + message.content + '<",
            ),
        ),
        {"test_trains_the_assistant_only", "test_prompt_is_a_prefix", "test_reply_is_parsed_back"},
    ),
    "trains_no_stop": (
        template(
            (
                "{{- '<|end|>' }}\n        {%- endgeneration %}",
                "{%- endgeneration %}{{- '<|end|>' }}",
            )
        ),
        {"test_trains_the_stop_token"},
    ),
    "trains_no_history": (
        template(
            (
                "{%- if message.role == 'assistant' %}",
                "{%- if message.role == 'assistant' and loop.last %}",
            )
        ),
        {
            "test_trains_the_assistant_only",
            "test_prompt_is_a_prefix",
            "test_weights",
            "test_reply_is_parsed_back",
        },
    ),
    "rewrites_history": (
        template(("{{- '<|start|>' +", "{{- 'Again: ' if loop.length > 2 }}{{- '<|start|>' +")),
        {"test_prompt_is_a_prefix"},
    ),
    "unreadable": (template(("call =", "drop =")), {"test_reply_is_parsed_back"}),
    "strips": (
        template(("{{- message.content }}", "{{- message.content | trim }}")),
        {"test_keeps_edges"},
    ),
    "squeezes": (
        template(("{{- message.content + ", "{{- message.content.split() | join(' ') + ")),
        {"test_keeps_text", "test_keeps_edges"},
    ),
    "stale": (
        template(
            (DEVIATION, ""),
            stale_json='{"cases": {"one_turn": {"text": ["Hello"], "trained": []}}}',
        ),
        {"test_golden"},
    ),
    "unofficial": (
        template(
            (DEVIATION, ""),
            unofficial_json='{"official": {"file": "own.jinja"}, "cases": {}}',
            own_jinja="{{ messages[0].content }}",
        ),
        {"test_golden", "test_official"},
    ),
    "refuses_systems": (
        template(
            ("{%- for", "{{- raise_exception('no') if messages[0].role == 'system' }}{%- for")
        ),
        ACCEPTED | {"test_weights"},
    ),
}


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    subjects = {name: subject for name, (subject, _) in SUBJECTS.items()}
    return judge(tmp_path_factory.mktemp("site"), subjects, "-k", "not hygiene and not TestTokens")


@pytest.mark.parametrize("name", SUBJECTS)
def test_what_is_wrong_is_named(verdict: Verdict, name: str) -> None:
    assert verdict.failed(name) == SUBJECTS[name][1]
