"""Helpers for the tests of templates: the templates, conversations of all kinds, and offline
tokenizers."""

from pathlib import Path
from typing import Any

from tunewright.types import Conversation, Message, Origin, Rendered, TemplateRequest, ToolCall
from tunewright_hf.templates.jinja_template import JinjaTemplate, from_file
from tunewright_hf.tokenization.encode import Tokeniser

PLUGINS = Path(__file__).parents[1] / "plugins"
FILES = {
    path.stem: path
    for path in sorted(PLUGINS.glob("*/*/src/*/templates/*.jinja"))
    if path.read_text(encoding="utf-8").startswith("{#- tunewright")  # others are macros
}
SPECIAL = {"bos_token": "<BOS>", "eos_token": "<EOS>"}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'Weather of a city, e.g. "Zürich" & <others>',
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "its name"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city"],
        },
    },
}
CALL = ToolCall("get_weather", {"city": "Zürich", "days": 3})


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str = "", **more: Any) -> Message:
    return Message("assistant", text, **more)


def system(text: str) -> Message:
    return Message("system", text)


def tool(text: str) -> Message:
    return Message("tool", text, name="get_weather")


def talk(*messages: Message, **more: Any) -> Conversation:
    return Conversation(list(messages), origin=Origin("data.jsonl", 7), **more)


#: name → conversation
TALKS = {
    "single": talk(user("How are you?"), assistant("Fine, thank you!")),
    "system": talk(system("Be brief."), user("How are you?"), assistant("Fine!")),
    "multi": talk(
        user("Hi"),
        assistant("Hello!"),
        user("2+2?"),
        assistant("4."),
        user("Thanks.\nBye"),
        assistant("Bye!"),
    ),
    "edges": talk(
        user("  two  \n"),
        assistant("\n\n leading and trailing \n "),
        user("é日本🙂"),
        assistant("🙂\tñ e\u0301"),
    ),
    "empty_answer": talk(user("say nothing"), assistant("")),
    "thinking": talk(user("2+2?"), assistant("4.", reasoning="Let me add.")),
    "thinking_tag": talk(user("2+2?"), assistant("<think>\nLet me add.\n</think>\n\n4.")),
    "thinking_history": talk(
        user("2+2?"),
        assistant("4.", reasoning="Let me add."),
        user("3+3?"),
        assistant("6.", reasoning="Again.\n"),
    ),
    "tool": talk(
        system("Be brief."),
        user("Weather?"),
        assistant(tool_calls=[CALL]),
        tool('{"temp": 21}'),
        assistant("21 degrees."),
        tools=[WEATHER],
    ),
    "tool_text": talk(
        user("Weather?"),
        assistant("I look it up.", tool_calls=[CALL]),
        tool("21"),
        assistant("21 degrees."),
        tools=[WEATHER],
    ),
    "tools_parallel": talk(
        user("Weather?"),
        assistant(tool_calls=[CALL, CALL]),
        tool("21"),
        tool("22"),
        assistant("21 or 22."),
        tools=[WEATHER, WEATHER],
    ),
    "tool_thinking": talk(
        user("Weather?"),
        assistant("", tool_calls=[CALL], reasoning="Ask."),
        tool("21"),
        assistant("21 degrees.", reasoning="Now I know."),
        user("Thanks"),
        assistant("Welcome"),
        tools=[WEATHER],
    ),
    "tool_offered": talk(user("Hi"), assistant("Hello!"), tools=[WEATHER]),
}


def template(name: str, **options: Any) -> JinjaTemplate:
    made = from_file(FILES[name])
    return made(made.Options(**options), name)


def render(
    made: Any,
    conversation: Conversation,
    special: dict[str, str] | None = None,
    prompt: bool = False,
    **more: Any,
) -> Rendered:
    return made.format_template(TemplateRequest(conversation, prompt, special or SPECIAL, **more))


def trained(rendered: Rendered) -> list[str]:
    return [rendered.text[span.start : span.end] for span in rendered.trained]


# ---- offline tokenizers --------------------------------------------------------------------------

CORPUS = [
    "How are you? I am fine, thank you! Hello, what is the weather in Paris today?\n\n",
    "system user assistant tool think answer You are a helpful assistant.\n",
    '{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n',
    (
        "  two spaces\tand tabs\n\n\nThe answer is 4. 21 degrees and clear. im_end "
        "im_start begin_of_text"
    ),
]
SPECIALS = [
    "<s>",
    "</s>",
    "<unk>",
    "<|im_start|>",
    "<|im_end|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|fim_prefix|>",
    "<BOS>",
    "<EOS>",
]
WORDS = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
]


def byte_level(eos: str = "<|im_end|>", bos: str | None = None) -> Any:
    """Byte-level BPE, as Qwen and Llama 3 have, with a post-processor that trims offsets."""
    from tokenizers import (
        AddedToken,
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(CORPUS * 3, trainer)
    made.add_tokens([AddedToken(word, special=False, normalized=False) for word in WORDS])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=eos, bos_token=bos, pad_token="<unk>"
    )


def metaspace(scheme: str = "first") -> Any:
    """Unigram pieces with Metaspace, as sentencepiece has; `legacy` writes the space in a
    normalizer, as Llama 2."""
    from tokenizers import (
        AddedToken,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.Unigram())
    letters = sorted(
        {letter for text in [*CORPUS, *SPECIALS, *WORDS] for letter in text if letter != " "}
        | {"▁"}
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=400,
        special_tokens=SPECIALS,
        unk_token="<unk>",
        initial_alphabet=letters,
        show_progress=False,
    )
    if scheme == "legacy":
        made.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.decoder = decoders.Metaspace()
    made.train_from_iterator(CORPUS * 3, trainer)
    made.add_tokens([AddedToken(word, special=False, normalized=False) for word in WORDS])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", bos_token="<s>", unk_token="<unk>"
    )


# ---- templates and tokenizers together -----------------------------------------------------------

PAIRS: dict[tuple[int, str], tuple[Any, Tokeniser]] = {}


def both(tokenizer: Any, name: str) -> tuple[Any, Tokeniser]:
    """The template and the tokeniser for it, kept."""
    if (id(tokenizer), name) not in PAIRS:
        made = template(name)
        PAIRS[id(tokenizer), name] = made, Tokeniser(tokenizer, made.info)
    return PAIRS[id(tokenizer), name]


def pair(tokenizer: Any, name: str, conversation: Conversation) -> tuple[Tokeniser, Rendered]:
    made, tokeniser = both(tokenizer, name)
    return tokeniser, render(made, conversation, tokeniser.special_tokens)


def runs(labels: list[int]) -> list[list[int]]:
    """Stretches of labels that are trained."""
    found: list[list[int]] = [[]]
    for label in labels:
        if label != -100:
            found[-1].append(label)
        elif found[-1]:
            found.append([])
    return [run for run in found if run]
