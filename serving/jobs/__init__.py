"""A scoring job: plan it, score it chunk by chunk, resume it, report on it."""
