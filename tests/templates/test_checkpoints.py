"""Text of listed checkpoints, with the template options that their lines set.

The expected texts were rendered with transformers from the checkpoints' own chat templates: those
of xorbitsai/inference (llm_family.json, copied from the hub) where nothing else is named.
"""

import re

import pytest

from template_cases import TALKS, assistant, render, talk, user
from templates.checkpoints_setup import CHAT, GRANITE, WITH_SYSTEM, of
from tunewright_hf.models import listed

HELPFUL = "You are a helpful assistant."
CODER = (
    "You are an AI programming assistant, utilizing the Deepseek Coder model, developed by "
    "Deepseek Company, and you only answer questions related to computer science. For politically "
    "sensitive questions, security and privacy issues, and other non-computer science questions, "
    "you will refuse to answer\n"
)
SMALL = (
    "You are Mistral Small 3, a Large Language Model (LLM) created by Mistral AI, a French startup "
    "headquartered in Paris.\nYour knowledge base was last updated on 2023-10-01. The current date "
    "is 2025-01-30.\n\nWhen you're not sure about some information, you say that you don't have "
    "the information and don't make up anything.\nIf the user's question is not clear, ambiguous, "
    "or does not provide enough context for you to accurately answer the question, you do not try "
    'to answer it right away and you rather ask the user to clarify their request (e.g. "What are '
    'some good restaurants around me?" => "Where are you?" or "When is the next flight to Tokyo" '
    '=> "Where do you travel from?")'
)


def chatml(prompt: str) -> str:
    return (
        f"<|im_start|>system\n{prompt}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def granite(prompt: str) -> str:
    return (
        f"<|start_of_role|>system<|end_of_role|>{prompt}<|end_of_text|>\n"
        "<|start_of_role|>user<|end_of_role|>Hi<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>Hello!<|end_of_text|>\n"
        "<|start_of_role|>user<|end_of_role|>2+2?<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>"
    )


MISTRAL = "<BOS>{system}[INST]Hi[/INST]Hello!<EOS>[INST]2+2?[/INST]"
OLD_MISTRAL = "<BOS> [INST] {system}Hi [/INST] Hello!<EOS> [INST] 2+2? [/INST]"
R1_0528 = "<BOS>{system}<｜User｜>Hi<｜Assistant｜>Hello!<EOS><｜User｜>2+2?<｜Assistant｜>"
DEEPSEEK = "<BOS>{system}User: Hi\n\nAssistant: Hello!<EOS>User: 2+2?\n\nAssistant:"
YI_1_5 = chatml("").partition("<|im_end|>\n")[2]
#: checkpoint → prompts of CHAT and WITH_SYSTEM
PROMPTS: dict[str, tuple[str, str]] = {
    **{
        name: (chatml(HELPFUL), chatml("Be brief."))
        for name in (
            "Qwen/Qwen2-7B-Instruct",
            "Qwen/Qwen2-57B-A14B",
            "Qwen/Qwen1.5-7B-Chat",
            "Qwen/CodeQwen1.5-7B-Chat",
            "Qwen/Qwen-7B-Chat",
            "Qwen/Qwen2.5-7B-Instruct-1M",
            "Qwen/Qwen2.5-0.5B",  # tokenizer_config.json of its revision 060db64 on the hub
        )
    },
    "Qwen/Qwen2.5-7B-Instruct": (
        chatml(f"You are Qwen, created by Alibaba Cloud. {HELPFUL}"),
        chatml("Be brief."),
    ),
    "MiniMaxAI/MiniMax-M2": tuple(  # type: ignore[dict-item]
        f"]~!b[]~b]system\n{prompt}[e~[\n]~b]user\nHi[e~[\n]~b]ai\nHello![e~[\n"
        "]~b]user\n2+2?[e~[\n]~b]ai\n<think>\n"
        for prompt in (HELPFUL, "Be brief.")
    ),
    # ibm-granite/granite-3.1-8b-instruct, as foundation-model-stack/fms-hf-tuning documents it
    "ibm-granite/granite-3.1-8b-instruct": (
        granite(GRANITE.format("December 18, 2024") + "You are a helpful AI assistant."),
        granite("Be brief."),
    ),
    "ibm-granite/granite-3.3-2b-instruct": (
        granite(GRANITE.format("April 16, 2025") + "You are a helpful AI assistant."),
        granite("Be brief."),
    ),
    "ibm-granite/granite-3.0-2b-instruct": (
        granite("").partition("<|end_of_text|>\n")[2],
        granite("Be brief."),
    ),
    # llama.cpp's models/templates/mistralai-Mistral-Small-3.1-24B-Instruct-2503.jinja
    "mistralai/Mistral-Small-24B-Instruct-2501": (
        MISTRAL.format(system=f"[SYSTEM_PROMPT]{SMALL}[/SYSTEM_PROMPT]"),
        MISTRAL.format(system="[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT]"),
    ),
    "01-ai/Yi-1.5-6B-Chat": (YI_1_5, f"Be brief.{YI_1_5}"),
    "01-ai/Yi-6B-Chat": (YI_1_5, chatml("Be brief.")),
    **{
        name: (OLD_MISTRAL.format(system=""), OLD_MISTRAL.format(system="Be brief.\n\n"))
        for name in (
            "mistralai/Mistral-7B-Instruct-v0.1",
            "mistralai/Mistral-7B-Instruct-v0.2",
            "mistralai/Mixtral-8x7B-Instruct-v0.1",
        )
    },
    "mistralai/Mistral-7B-Instruct-v0.3": (
        "<BOS>[INST] Hi[/INST] Hello!<EOS>[INST] 2+2?[/INST]",
        "<BOS>[INST] Be brief.\n\nHi[/INST] Hello!<EOS>[INST] 2+2?[/INST]",
    ),
    **{
        name: (DEEPSEEK.format(system=""), DEEPSEEK.format(system="Be brief.\n\n"))
        for name in (
            "deepseek-ai/deepseek-llm-7b-chat",
            "deepseek-ai/DeepSeek-V2-Chat",
            "deepseek-ai/DeepSeek-Coder-V2-Lite-Instruct",
        )
    },
    "deepseek-ai/DeepSeek-V2-Chat-0628": (
        R1_0528.format(system=""),
        R1_0528.format(system="Be brief.\n\n"),
    ),
    **{
        name: (R1_0528.format(system=""), R1_0528.format(system="Be brief."))
        for name in ("deepseek-ai/DeepSeek-R1-0528", "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B")
    },
    "deepseek-ai/DeepSeek-R1": (
        R1_0528.format(system="") + "<think>\n",
        R1_0528.format(system="Be brief.") + "<think>\n",
    ),
    "deepseek-ai/deepseek-coder-6.7b-instruct": tuple(  # type: ignore[dict-item]
        f"<BOS>{prompt}### Instruction:\nHi\n### Response:\nHello!\n<|EOT|>\n"
        "### Instruction:\n2+2?\n### Response:\n"
        for prompt in (CODER, "Be brief.")
    ),
    # ikawrakow/ik_llama.cpp's models/templates/Kimi-K2-Instruct.jinja: a newline after its default
    "moonshotai/Kimi-K2-Instruct": tuple(  # type: ignore[dict-item]
        f"<|im_system|>system<|im_middle|>{prompt}<|im_user|>user<|im_middle|>Hi<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|>Hello!<|im_end|><|im_user|>user<|im_middle|>2+2?"
        "<|im_end|><|im_assistant|>assistant<|im_middle|>"
        for prompt in (
            "You are Kimi, an AI assistant created by Moonshot AI.<|im_end|>\n",
            "Be brief.<|im_end|>",
        )
    ),
    # xinference's llm_family.json, which copies the checkpoint's own template
    "moonshotai/Moonlight-16B-A3B-Instruct": tuple(  # type: ignore[dict-item]
        f"<|im_system|>system<|im_middle|>{prompt}<|im_end|><|im_user|>user<|im_middle|>Hi<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|>Hello!<|im_end|><|im_user|>user<|im_middle|>2+2?"
        "<|im_end|><|im_assistant|>assistant<|im_middle|>"
        for prompt in ("You are a helpful assistant", "Be brief.")
    ),
    # tokenizer_config.json of THUDM/chatglm3-6b, as LMFlow's documentation has it
    "THUDM/chatglm3-6b": tuple(  # type: ignore[dict-item]
        f"[gMASK]sop{prompt}<|user|>\n Hi<|assistant|>\n Hello!<|user|>\n 2+2?<|assistant|>"
        for prompt in ("", "<|system|>\n Be brief.")
    ),
}


@pytest.mark.parametrize("checkpoint", PROMPTS)
def test_the_prompt_is_the_checkpoints_own(checkpoint: str) -> None:
    made = of(checkpoint)
    bare, with_system = PROMPTS[checkpoint]
    assert render(made, CHAT, prompt=True).text == bare
    assert render(made, WITH_SYSTEM, prompt=True).text == with_system


def test_all_checkpoints_of_qwen1_5_and_qwen2_have_their_own_system_prompt() -> None:
    found = [
        each
        for each in listed.checkpoints("tunewright_qwen")
        if each.id.startswith(("Qwen/Qwen1.5-", "Qwen/Qwen2-"))
        and not re.search("-(VL|Audio)-", each.id)
    ]
    assert len(found) == 28
    assert {each.template_options["system"] for each in found} == {HELPFUL}


def test_base_models_without_a_template_get_no_ones_system_prompt() -> None:
    for checkpoint in (
        "ibm-granite/granite-3.3-2b-base",
        "ibm-granite/granite-3.1-8b-base",
        "mistralai/Mistral-Small-24B-Base-2501",
    ):
        assert of(checkpoint).info.default_system == ""  # type: ignore[attr-defined]


def test_thinking_of_r1_0528_is_the_models_to_write() -> None:
    asked = "<BOS><｜User｜>2+2?<｜Assistant｜>"
    made = of("deepseek-ai/DeepSeek-R1-0528")
    thought = render(made, TALKS["thinking"])
    assert thought.text == f"{asked}<think>\nLet me add.\n</think>\n\n4.<EOS>"
    assert thought.trained[0].start == len(asked)
    assert render(made, TALKS["single"]).text.endswith("<｜Assistant｜>Fine, thank you!<EOS>")
    off = of("deepseek-ai/DeepSeek-R1-0528", enable_thinking=False)
    prompt = render(off, talk(user("2+2?")), prompt=True).text
    assert prompt == f"{asked}<think>\n\n</think>\n\n"
    assert render(off, talk(user("2+2?"), assistant("4."))).text == f"{prompt}4.<EOS>"
