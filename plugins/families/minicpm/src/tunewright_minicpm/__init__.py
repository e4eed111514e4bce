"""OpenBMB's MiniCPM 1 to 4.1, and MiniCPM-V."""

from collections.abc import Callable

from tunewright.types import LoadedModel
from tunewright_hf.models.family import HfFamily


class MiniCPM(HfFamily):
    """MiniCPM 1 to 4.1 (Hu et al. 2024, arXiv:2404.06395; MiniCPM Team 2025, arXiv:2506.07900),
    and MiniCPM-V (Yao et al. 2024, arXiv:2408.01800)."""

    def _finish_media(self, loaded: LoadedModel, notify: Callable[[str, str], None]) -> None:
        if loaded.processor is not None:
            from tunewright_minicpm.minicpmv import adapt_model, adapt_processor

            loaded.processor = adapt_processor(loaded.processor)
            if loaded.model is not None and loaded.model.config.model_type in OWN_CODE:
                adapt_model(loaded.model, loaded.tokenizer)
        super()._finish_media(loaded, notify)


#: model types whose code is beside the weights only
OWN_CODE = ("minicpmv", "minicpmo")
