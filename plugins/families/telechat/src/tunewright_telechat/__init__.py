"""China Telecom's TeleChat and TeleChat2."""

from tunewright_hf.models.family import HfFamily


class TeleChat(HfFamily):
    """TeleChat and TeleChat2 (Wang et al. 2024, arXiv:2401.03804)."""
