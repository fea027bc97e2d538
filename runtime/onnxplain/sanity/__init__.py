"""Is an explanation about the model at all? Randomised initializers, similarities beside their nulls, verdicts."""
