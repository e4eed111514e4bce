"""Tokens that a recipe adds to the vocabulary: their names, and the beginning of their embeddings.
Imports torch only where it is used: `problems` is called before anything loads."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tunewright.errors import Problem, RecipeError

if TYPE_CHECKING:
    from tunewright.check import Resolved
    from tunewright.types import LoadedModel

__all__ = ["add", "problems"]

Notify = Callable[[str, str], None]  # message, level


def problems(at: tuple[str | int, ...], recipe: "Resolved") -> Iterator[Problem]:
    """Problems of new tokens with the adapter and the accelerators. at: the field that adds
    them."""
    adapter = recipe.choices["adapter"]
    if not getattr(adapter.plugin, "trains_new_tokens", False):
        yield Problem(
            at,
            f"adapter {adapter.entry.name} does not train the embeddings of new tokens",
            "set adapter: lora, trainable_tokens or full",
        )
    for accelerator in recipe.lists.get("accelerator", []):
        if accelerator.plugin.shards:
            yield Problem(
                at,
                f"the embeddings are resized before {accelerator.entry.name} shards them, which "
                "is not supported",
                "add the tokens to the checkpoint first, or train without it",
            )


def add(
    loaded: "LoadedModel",
    tokens: Mapping[str, str | None] | list[str],
    seed: int,
    notify: Notify,
) -> None:
    """Add tokens to the tokenizer, in place, and to the model if there is one.

    tokens: with descriptions, or None. They are added as plain tokens, not as special ones: text
    that spells them is encoded as them in every message, and they are kept in what is decoded. A
    token that the vocabulary has keeps its embedding. Raises RecipeError.
    """
    described = dict.fromkeys(tokens) if isinstance(tokens, list) else dict(tokens)
    tokenizer = loaded.tokenizer
    known = tokenizer.get_vocab()
    _check(described, known, notify)
    new = {token: text for token, text in described.items() if token not in known}
    words = {
        token: tokenizer.encode(text, add_special_tokens=False) if text else []
        for token, text in new.items()
    }
    if new:
        from transformers import AddedToken

        tokenizer.add_tokens([AddedToken(token, normalized=False) for token in new])
    loaded.new_tokens = tuple(tokenizer.convert_tokens_to_ids(list(described)))
    if loaded.model is not None and new:
        numbers = {tokenizer.convert_tokens_to_ids(token): ids for token, ids in words.items()}
        _embed(loaded.model, numbers, sorted(known.values()), seed)


def _check(described: dict[str, str | None], known: dict[str, int], notify: Notify) -> None:
    for token in described:
        if not token.strip():
            raise RecipeError("a token is empty", place="family.new_tokens")
        if token in known:
            notify(f"{token!r} is in the vocabulary already, and keeps its embedding", "info")


def _check_ids(model: Any, highest: int) -> None:
    """Raise RecipeError if ids after the vocabulary are those of media: in Gemma 3n they choose
    embeddings of media, and the head of Llama 3.2 Vision ends before that of its image."""
    offsets = [part.vocab_offset for part in model.modules() if hasattr(part, "vocab_offset")]
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is not None and head.weight.shape[0] < embeddings.weight.shape[0]:
        offsets.append(head.weight.shape[0])
    if offsets and highest >= min(offsets):
        raise RecipeError(
            f"{type(model).__name__} has ids of media from {min(offsets)} on, where new tokens "
            "would be",
            place="family.new_tokens",
            hint="name tokens that its vocabulary reserves, which are trained alike",
        )


def _embed(model: Any, new: dict[int, list[int]], known: list[int], seed: int) -> None:
    """Give the model rows for new ids, each the mean of rows of its description or of all.

    new: id → ids of the description's tokens. known: all ids before.
    """
    import torch

    from tunewright_hf.models.devices import seeded

    rows = model.get_input_embeddings().weight.shape[0]
    _check_ids(model, max(new))
    if max(new) >= rows:
        with seeded(seed, model.device):  # transformers draws rows, which are overwritten
            model.resize_token_embeddings(max(new) + 1, mean_resizing=False)
    known = [number for number in known if number < rows]
    embeddings = (model.get_input_embeddings(), model.get_output_embeddings())
    tables = {id(each.weight): each.weight for each in embeddings if each is not None}
    with torch.no_grad():
        for table in tables.values():
            mean = table[known].float().mean(dim=0)
            for number, words in new.items():
                table[number] = table[words].float().mean(dim=0) if words else mean
