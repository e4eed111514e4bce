"""Next tokens of many rows at once, each with its own settings.

One uniform number of the row's own generator decides each sampled token (inverse CDF), so a row's
tokens depend neither on the other rows nor on any global random state.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tunewright_hf.inference.rows import Row, Score

__all__ = ["next_tokens", "scores_of"]


def next_tokens(logits: Tensor, rows: Sequence[Row]) -> tuple[list[int], list[Score | None]]:
    """Choose the next token of each row, and score those that ask for it.

    logits: (B, V), of any floating dtype. The order is that of transformers' generate: penalties,
    biases, guides, temperature, top_k, top_p, min_p.
    """
    if all(row.is_plain for row in rows):
        return logits.argmax(-1).tolist(), [None] * len(rows)
    scores = logits.to(torch.float32, copy=True)
    raw = scores.clone() if any(row.logprobs is not None for row in rows) else scores
    for number, row in enumerate(rows):
        _penalise(scores[number], row)
        if row.guide is not None:
            row.guide.restrict(scores[number])
    chosen = scores.argmax(-1)
    sampled = [number for number, row in enumerate(rows) if row.sampling.temperature > 0]
    if sampled:
        drawn = _draw(scores[sampled], [rows[number] for number in sampled])
        chosen[sampled] = drawn.to(chosen.device)
    tokens = chosen.tolist()
    for row, token in zip(rows, tokens, strict=True):
        if row.memory is not None:
            row.memory[:, token] += 1
        if row.guide is not None:
            row.guide.accept(token)
    found: list[Score | None] = [None] * len(rows)
    for number, row in enumerate(rows):
        if row.logprobs is not None:
            found[number] = scores_of(raw[number, None], tokens[number : number + 1], row.logprobs)[
                0
            ]
    return tokens, found


def scores_of(logits: Tensor, tokens: Sequence[int], count: int) -> list[Score]:
    """Score tokens: logits (N, V), one row a token. count: of the most likely tokens."""
    logprobs = logits.float().log_softmax(-1)
    own = logprobs.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
    top = logprobs.topk(min(count, logits.shape[1]), dim=-1)
    return [
        Score(token, logprob, tuple(zip(ids, values, strict=True)))
        for token, logprob, ids, values in zip(
            tokens, own, top.indices.tolist(), top.values.tolist(), strict=True
        )
    ]


def _penalise(scores: Tensor, row: Row) -> None:
    """Apply penalties and biases to one row's logits (V,), in place."""
    asked = row.sampling
    if asked.repetition_penalty != 1 or asked.presence_penalty or asked.frequency_penalty:
        if row.memory is None:
            row.memory = _counts(row, scores)
        everywhere, answer = row.memory  # (V,) each
        if asked.repetition_penalty != 1:
            penalty = asked.repetition_penalty
            penalised = torch.where(scores < 0, scores * penalty, scores / penalty)
            scores.copy_(torch.where(everywhere > 0, penalised, scores))
        scores -= asked.presence_penalty * (answer > 0) + asked.frequency_penalty * answer
    if asked.logit_bias:
        ids, values = zip(*asked.logit_bias, strict=True)
        scores[list(ids)] += torch.tensor(values, device=scores.device)


def _counts(row: Row, scores: Tensor) -> Tensor:
    """Count each token in prompt and answer, and in the answer: (2, V)."""
    counts = scores.new_zeros(2, scores.shape[0])
    for number, ids in enumerate((row.prompt + row.tokens, row.tokens)):
        if ids:
            found = torch.tensor(ids, device=scores.device)
            counts[number].index_add_(0, found, scores.new_ones(len(ids)))
    return counts


def _draw(scores: Tensor, rows: Sequence[Row]) -> Tensor:
    """Sample a token for each row: (B, V) -> (B,)."""
    device = torch.device("cpu") if scores.device.type == "mps" else scores.device
    asked = [row.sampling for row in rows]

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=device)[:, None]

    # Apple's GPUs have no float64
    scores = scores.to(device).double() / column([each.temperature for each in asked])
    if any(each.top_k or each.top_p < 1 or each.min_p for each in asked):
        scores = _truncate(scores, rows)
    sums = scores.softmax(-1).cumsum(-1)  # (B, V)
    numbers = column([0.0 if row.random is None else row.random.random() for row in rows])
    wanted = numbers * sums[:, -1:]  # the last sum is 1 but for rounding
    # the first token whose sum exceeds the number: never one of probability 0
    chosen = torch.searchsorted(sums, wanted, right=True).clamp(max=scores.shape[1] - 1)
    return chosen[:, 0]


def _truncate(scores: Tensor, rows: Sequence[Row]) -> Tensor:
    """Set the scores of tokens that top_k, top_p and min_p leave out to minus infinity."""
    asked = [row.sampling for row in rows]
    size = scores.shape[1]
    ordered, order = scores.sort(-1, descending=True)

    def of(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=scores.dtype, device=scores.device)[:, None]

    last = of([min(each.top_k or size, size) - 1 for each in asked]).long()
    ordered = ordered.masked_fill(ordered < ordered.gather(1, last), -torch.inf)  # ties stay
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities  # of more likely tokens
    out = (before >= of([each.top_p for each in asked])) & (before > 0)
    ordered = ordered.masked_fill(out, -torch.inf)
    probabilities = ordered.softmax(-1)
    least = of([each.min_p for each in asked]) * probabilities[:, :1]
    ordered = ordered.masked_fill(probabilities < least, -torch.inf)
    return torch.empty_like(scores).scatter(1, order, ordered)
