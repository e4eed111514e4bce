# Short names for scripts/dev.py, which needs nothing but Python 3.11.
PYTHON ?= python3

.PHONY: quickstart test check fix install
quickstart test check fix install:
	$(PYTHON) scripts/dev.py $@
