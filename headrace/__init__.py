"""Fine-tune text models on a schedule and score a lot of text cheaply."""
