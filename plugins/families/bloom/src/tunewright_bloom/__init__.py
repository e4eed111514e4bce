"""BLOOM and BLOOMZ."""

from tunewright_hf.models.family import HfFamily


class Bloom(HfFamily):
    """BLOOM and BLOOMZ (Le Scao et al. 2022, arXiv:2211.05100; Muennighoff et al. 2022,
    arXiv:2211.01786)."""
