"""Tools and calls of listed checkpoints, with the template options that their lines set.

The expected texts come from where those of test_checkpoints.py do.
"""

import pytest

from template_cases import WEATHER, assistant, render, system, talk, template, tool, user
from templates.checkpoints_setup import GRANITE, WITH_SYSTEM, of
from tunewright.types import ToolCall

SCHEMA = """{
    "name": "%s",
    "description": "d"
}"""
TOLD = "在调用上述函数时，请使用 Json 格式表示调用的参数。"
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "d"}} for name in ("a", "b")
]


@pytest.mark.parametrize("checkpoint", ["THUDM/GLM-4-9B-0414", "THUDM/GLM-Z1-9B-0414"])
def test_tools_of_glm_0414_have_a_system_message_of_their_own(checkpoint: str) -> None:
    rendered = render(of(checkpoint), talk(*WITH_SYSTEM.messages, tools=TOOLS), prompt=True)
    offered = (
        f"[gMASK]<sop><|system|>\n# 可用工具\n\n## a\n\n{SCHEMA % 'a'}\n{TOLD}"
        f"\n## b\n\n{SCHEMA % 'b'}\n{TOLD}<|system|>\nBe brief.<|user|>\nHi"
    )
    assert rendered.text.startswith(offered)


def test_tools_of_glm4_begin_with_who_it_is() -> None:
    """As the Berkeley leaderboard's handler of GLM-4 (gorilla/bfcl) and its own code write it."""
    rendered = render(of("THUDM/glm-4-9b-chat-hf"), talk(user("Hi"), tools=TOOLS), prompt=True)
    assert rendered.text == (
        "[gMASK]<sop><|system|>\n你是一个名为 ChatGLM 的人工智能助手。你是基于智谱AI训练的语言模型 "
        "GLM-4 模型开发的，你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具"
        f"\n\n## a\n\n{SCHEMA % 'a'}\n{TOLD}\n\n## b\n\n{SCHEMA % 'b'}\n{TOLD}"
        "<|user|>\nHi<|assistant|>"
    )


@pytest.mark.parametrize(
    ("checkpoint", "date", "role", "asks"),
    [
        (
            "ibm-granite/granite-3.3-2b-instruct",
            "April 16, 2025",
            "available_tools",
            "You are a helpful assistant with access to the following tools. When a tool is "
            "required to answer the user's query, respond only with <|tool_call|>",
        ),
        (
            "ibm-granite/granite-3.1-2b-instruct",
            "December 18, 2024",
            "tools",
            "You are a helpful AI assistant with access to the following tools. When a tool is "
            "required to answer the user's query, respond with <|tool_call|>",
        ),
    ],
)
def test_tools_of_granite(checkpoint: str, date: str, role: str, asks: str) -> None:
    text = render(of(checkpoint), talk(user("Hi"), tools=TOOLS), prompt=True).text
    begin = f"<|start_of_role|>system<|end_of_role|>{GRANITE.format(date)}{asks} followed by"
    assert text.startswith(begin)
    assert f"<|end_of_text|>\n<|start_of_role|>{role}<|end_of_role|>[\n    {{" in text
    mine = render(of(checkpoint), talk(system("Mine."), user("Hi"), tools=TOOLS), prompt=True).text
    assert mine.startswith("<|start_of_role|>system<|end_of_role|>Mine.<|end_of_text|>\n")


def test_a_closed_system_message_of_smollm3() -> None:
    """As Unsloth's copy of SmolLM3 writes it, which llama.cpp has taken over."""
    made = template("smollm3", closed_system=True)
    assert render(made, WITH_SYSTEM, prompt=True).text.startswith(
        "<|im_start|>system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\n"
        "Reasoning Mode: /think\n\n## Custom Instructions\n\nBe brief.\n\n<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n"
    )


# ---- text, thinking and calls in one message -----------------------------------------------------


CALL = ToolCall("get_weather", {"city": "Rome"})
BESIDE = talk(
    user("Weather?"),
    assistant("I ask.", tool_calls=[CALL]),
    tool("21"),
    assistant("It is 21."),
    tools=[WEATHER],
)
PARALLEL = talk(
    user("Weather?"),
    assistant(tool_calls=[CALL, CALL]),
    tool("21"),
    tool("22"),
    assistant("Warm."),
    tools=[WEATHER],
)
JSON = '{"city": "Rome"}'


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("glm4", f"\nI ask.<|assistant|>get_weather\n{JSON}<|observation|>"),
        ("chatglm3", f"\n I ask.<|assistant|>get_weather\n {JSON}<|observation|>"),
        ("glmz1", f"\n</think>\n\nI ask.<|assistant|>get_weather\n{JSON}<|observation|>"),
        ("llama3_1", f'I ask.\n{{"name": "get_weather", "parameters": {JSON}}}<|eot_id|>'),
    ],
)
def test_a_text_beside_a_call(name: str, answer: str) -> None:
    made = template(name)
    rendered = render(made, BESIDE)
    span = rendered.trained[0]
    assert rendered.text[span.start : span.end] == answer
    reply = made.parse_reply(answer, [WEATHER])
    assert (reply.content, reply.tool_calls) == ("I ask.", [CALL])


@pytest.mark.parametrize("name", ["glm4", "glmz1", "chatglm3"])
def test_several_calls_of_glm(name: str) -> None:
    made = template(name)
    rendered = render(made, PARALLEL)
    span = rendered.trained[0]
    answer = rendered.text[span.start : span.end]
    assert answer.count("get_weather") == 2 and answer.endswith("<|observation|>")
    assert made.parse_reply(answer, [WEATHER]).tool_calls == [CALL, CALL]
    assert rendered.text[span.end :].count("<|observation|>") == 1  # of the second result
