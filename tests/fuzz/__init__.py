"""Coverage-guided fuzzing of what reads files: `scripts/fuzz`. Every crash it finds becomes a case of a test."""
