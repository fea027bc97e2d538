"""Differentiation: the rule set, what a rule sees, the walk, and the rules by operator family."""
