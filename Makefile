# Every target makes the environment ready first; see tools/env.py.
# PYTHON is what .venv is made with; STRATEGIES are those that the quickstart compares.
PYTHON ?= python3
STRATEGIES ?= mutual_guidance

.PHONY: env quickstart test lint

# Only make the environment ready.
env:
	$(PYTHON) tools/env.py

# Draw a small data set, train and evaluate on it, and write a report.
quickstart:
	$(PYTHON) tools/env.py tools/quickstart.py --strategies $(STRATEGIES)

# Run the tests, without those marked slow, in two processes of one thread each.
test:
	OMP_NUM_THREADS=1 $(PYTHON) tools/env.py -m pytest -n 2

# Check style and formatting.
lint:
	$(PYTHON) tools/env.py -m ruff check .
	$(PYTHON) tools/env.py -m ruff format --check .
