"""Divergences between a teacher and a student: (N,) in nats, from log-probabilities (N, C) of C
classes, which are tokens or, of a teacher's likeliest tokens, those and all others as one."""

import torch
from torch import Tensor

#: stands for the logarithm of 0, so that nothing becomes infinite minus infinite
_LEAST = -1e4


def log_softmax(logits: Tensor, temperature: float) -> Tensor:
    """Log-probabilities of logits (N, V) at a softmax temperature."""
    return (logits / temperature).log_softmax(-1).clamp(min=_LEAST)


def forward_kl(teacher: Tensor, student: Tensor, beta: float) -> Tensor:
    return (teacher.exp() * (teacher - student)).sum(-1)


def reverse_kl(teacher: Tensor, student: Tensor, beta: float) -> Tensor:
    return (student.exp() * (student - teacher)).sum(-1)


def js(teacher: Tensor, student: Tensor, beta: float) -> Tensor:
    """beta × KL(teacher, mixture) + (1 - beta) × KL(student, mixture). The mixture has beta of
    the teacher (Agarwal et al. 2023, arXiv:2306.13649, equation 1)."""
    weights = teacher.new_tensor([beta, 1 - beta]).log()
    mixture = torch.logaddexp(teacher + weights[0], student + weights[1])
    return beta * forward_kl(teacher, mixture, beta) + (1 - beta) * forward_kl(
        student, mixture, beta
    )


DIVERGENCES = {"forward_kl": forward_kl, "reverse_kl": reverse_kl, "js": js}


def likeliest(logps: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Ids (N, count) of the likeliest tokens, and the log-probabilities of them and of all others
    together (N, count + 1), of log-probabilities (N, V)."""
    ids = logps.topk(count).indices
    return ids, with_the_rest(logps, ids)


def with_the_rest(logps: Tensor, ids: Tensor) -> Tensor:
    """Log-probabilities of these tokens (N, K), and of all others together: (N, K + 1)."""
    rest = logps.scatter(1, ids, _LEAST).logsumexp(-1, keepdim=True)
    return torch.cat([logps.gather(1, ids), rest.clamp(min=_LEAST)], 1)
