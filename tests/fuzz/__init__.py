"""Coverage-guided fuzzing of what reads files: `scripts/fuzz`. What it finds becomes a case."""
