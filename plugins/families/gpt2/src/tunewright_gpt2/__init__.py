"""GPT-2."""

from typing import ClassVar

from tunewright_hf.models.family import HfFamily


class Gpt2(HfFamily):
    """GPT-2 (Radford et al. 2019, Language Models are Unsupervised Multitask Learners)."""

    deviations: ClassVar = {
        "test_special_tokens": "GPT-2's tokenizer has one special token, so <|endoftext|> pads too."
    }
