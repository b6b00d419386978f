"""GRPO that reads what a group of completions has in common once."""
