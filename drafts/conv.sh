cd 20; .venv/bin/jupytext --to ipynb 20.md -o notebooks/20_dialogue.ipynb >/dev/null
.venv/bin/ruff check --select I --fix -q --config notebooks/ruff.toml notebooks/20_dialogue.ipynb; .venv/bin/ruff format -q --config notebooks/ruff.toml notebooks/20_dialogue.ipynb
.venv/bin/ruff check --config notebooks/ruff.toml notebooks/20_dialogue.ipynb
