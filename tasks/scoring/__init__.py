"""Run scoring jobs in processes of their own, and recover when one dies."""
