"""Conversations for `template show`. Each ends with the assistant."""

from tunewright.types import Conversation, Message, ToolCall

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Today's weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "name of the city"}},
            "required": ["city"],
        },
    },
}
SIMPLE = [Message("user", "What is the capital of France?"), Message("assistant", "Paris.")]
MORE = [Message("user", "And of Italy?"), Message("assistant", "Rome.")]

EXAMPLES = {
    "simple": Conversation(SIMPLE),
    "multi": Conversation([*SIMPLE, *MORE]),
    "system": Conversation([Message("system", "Answer in one word."), *SIMPLE]),
    "tools": Conversation(
        [
            Message("user", "What is the weather in Oslo?"),
            Message(
                "assistant", tool_calls=[ToolCall("get_weather", {"city": "Oslo"}, id="call00001")]
            ),
            Message(
                "tool",
                '{"temperature": 4, "sky": "rain"}',
                tool_call_id="call00001",
                name="get_weather",
            ),
            Message("assistant", "It rains in Oslo, at 4 degrees."),
        ],
        tools=[WEATHER],
    ),
    "thinking": Conversation(
        [
            *SIMPLE,
            Message("user", "How many letters has its name?"),
            Message("assistant", "Five.", reasoning="P, a, r, i, s: five letters."),
        ]
    ),
}
