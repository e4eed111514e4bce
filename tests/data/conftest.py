"""Distributions made on the spot, as the tests of the kernel make them."""

from kernel.conftest import install as install
