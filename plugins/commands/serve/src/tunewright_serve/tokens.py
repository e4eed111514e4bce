"""POST /tokenize and /detokenize."""

from typing import Any

from tunewright.inference import GenerateRequest
from tunewright_serve.conversation import tool_schemas, wire_conversation
from tunewright_serve.errors import ApiError
from tunewright_serve.service import Service
from tunewright_serve.wire_other import DetokenizeBody, TokenizeBody

__all__ = ["detokenize", "tokenize"]


async def tokenize(service: Service, body: TokenizeBody) -> dict[str, Any]:
    """Token ids of a text, or of the prompt that messages make."""
    request = GenerateRequest(model=service.model(body.model)[1], max_new_tokens=0)
    if (body.prompt is None) == (body.messages is None):
        raise ApiError("prompt: give either prompt or messages", param="prompt")
    if body.messages is None:
        request.prompt = body.prompt
    else:
        tools = tool_schemas(body.tools or [])
        request.conversation = wire_conversation(
            body.messages,
            tools,
            dict(body.chat_template_kwargs or {}),
            service.engine.features,
            service.media_hosts,
        )
    ids = await service.encode(request)
    return {"tokens": ids, "count": len(ids), "max_model_len": service.engine.max_length}


async def detokenize(service: Service, body: DetokenizeBody) -> dict[str, Any]:
    """The text of token ids."""
    request = GenerateRequest(
        prompt=body.tokens, model=service.model(body.model)[1], max_new_tokens=0
    )
    ids = await service.encode(request)  # refuses ids that there are not
    return {"prompt": await service.in_pool(service.engine.decode, ids)}
