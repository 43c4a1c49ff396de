"""Run scoring jobs: the processes that score, and what happens when one dies."""
