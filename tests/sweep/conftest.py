from kernel.conftest import install

__all__ = ["install"]
