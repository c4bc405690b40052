# `make run` and `make test` are all a fresh machine needs. PYTHON=python3.12 chooses the interpreter.
PYTHON ?= python3
BIN := .venv/bin
# uv compiles nothing when it installs. Where nothing may be kept either, every process compiles what it imports: half a minute.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test lint site env clean

run: env
	$(BIN)/megu run

test: env
	$(BIN)/python -m pytest

lint: env
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# The reference pages are written from the code; a link or an anchor that leads nowhere ends it.
site: env
	$(BIN)/python docs/reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

env: .venv/ready

# uv installs in seconds what takes pip minutes. It does not read pip's configuration, so a local folder of wheels configured
# there (a CPU-only torch, say) is handed on. Where uv fails, pip is the second try.
.venv/ready: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@links="$$($(BIN)/python -m pip config get global.find-links 2>/dev/null)"; \
	if [ -n "$$links" ] && [ -d "$$links" ]; then export UV_FIND_LINKS="$$links"; fi; \
	VIRTUAL_ENV=.venv $(BIN)/uv pip install -c constraints.txt -e '.[dev]' \
	|| $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv
