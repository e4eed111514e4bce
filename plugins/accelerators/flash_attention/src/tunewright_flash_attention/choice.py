"""Choice of the installed FlashAttention."""

from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

#: version → the package that has it, newest first
_PACKAGES = {3: "flash-attn-3", 2: "flash-attn"}


def choose(version: int | None, device: str) -> tuple[str | None, str]:
    """Return (transformers' name of the implementation, a notice); None: sdpa, and why.

    version: None for the newest that is installed. device: type of the model's device.
    """
    if device != "cuda":
        return (
            None,
            f"attention: sdpa, since FlashAttention needs a GPU and the model is on {device}",
        )
    # transformers' own checks: package, its version, and CUDA
    found = {3: is_flash_attn_3_available, 2: is_flash_attn_2_available}
    asked = [version] if version else list(_PACKAGES)
    for each in asked:
        if found[each]():
            return f"flash_attention_{each}", f"attention: FlashAttention {each}"
    missing = " nor ".join(_PACKAGES[each] for each in asked)
    return None, (
        f"attention: sdpa, since {'neither ' if len(asked) > 1 else ''}{missing} is "
        f"{'not ' if len(asked) == 1 else ''}installed: pip install {_PACKAGES[asked[-1]]} "
        "--no-build-isolation"
    )
